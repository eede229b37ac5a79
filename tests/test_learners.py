"""The contract tests: every registered learner passes them, untouched, by being registered."""

from __future__ import annotations

import inspect
import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gradient_toys import draw_tasks, smooth
from learner_toys import VARIANTS, build, checked
from torch import Tensor, nn

from kshot import evaluation
from kshot.backbones import Backbone, Conv4
from kshot.data.dataset import Dataset
from kshot.errors import ConfigError
from kshot.learners import MAML, SimpleShot, learners
from kshot.learners import base as learner_base
from kshot.learners import maml as maml_module
from kshot.learners.training_split import observe
from kshot.testing import check_learner
from kshot.testing.requirements import require_equal_gradients
from kshot.testing.subject import Subject
from kshot.training import train
from kshot.training.checks import check_compile

NAMES = sorted([*learners, *VARIANTS.keys() - learners.keys()])


@pytest.mark.parametrize("name", NAMES)
def test_every_learner_keeps_the_contracts(name):
    cls, options = checked(name)
    check_learner(cls, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_that_compiling_would_break_is_refused(name):
    learner = build(name)
    if learner.can_compile:
        return check_compile(learner)
    with pytest.raises(ConfigError, match="leave out compile"):
        check_compile(learner)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_compiling_the_backbone_leaves_the_gradients_as_they_are(name):
    """With its backward pass traced, too, which `check_learner` leaves to autograd."""
    plain, compiled = build(name).double(), build(name).double()
    if not plain.can_compile:
        pytest.skip("is refused")
    torch.compiler.reset()
    compiled.backbone.compile(backend="aot_eager")
    cls, _ = checked(name)
    batch = Subject(cls, 0.8, {}).training_tasks(dtype=torch.float64)
    for learner in (plain, compiled):
        learner.accumulate_gradients(batch)
    require_equal_gradients(compiled, plain, "compiled", but_for_rounding=plain.magnifies_rounding)


@pytest.mark.parametrize("name", sorted(learners))
def test_every_learner_shows_its_algorithm_in_about_six_lines(name):
    text = inspect.cleandoc(learners[name].__doc__ or "")
    box = re.search(r"^::\n\n((?:    .*\n)+)", text, re.MULTILINE)
    assert box, f"write the algorithm of {name} into the docstring of its class, as a literal block after '::'"
    assert 5 <= len(box[1].splitlines()) <= 10, f"the algorithm of {name} should take about six lines"
    assert text.index("::") < text.find("Parameters\n---") or "Parameters" not in text


@pytest.mark.parametrize("name", sorted(learners))
def test_a_learner_says_what_it_is(name):
    learner = build(name)
    shown = repr(learner).splitlines()
    size = sum(parameter.numel() for parameter in learner.parameters())
    assert shown[0].startswith(f"{type(learner).__name__}(")
    assert shown[1:] == [
        "  backbone: Conv4(width=8, in_channels=1, image_size=16), 8 features per image",
        f"  parameters: {size:,}",
    ]
    assert "ways=3" in shown[0] or learner.bound_ways is None


def test_options_that_are_not_the_defaults_are_shown():
    learner = MAML(Conv4(8, in_channels=1, image_size=16), ways=4, first_order=True)
    assert repr(learner).startswith("MAML(ways=4, first_order=True)\n")


# From the step of training to the inner loss there are no more rooms than the algorithm has


@pytest.mark.parametrize("first_order", [False, True])
def test_six_frames_lead_from_the_step_to_the_inner_cross_entropy(monkeypatch, first_order):
    original, stacks = learner_base.task_losses, []

    def task_losses(scores, labels):
        frame, names = sys._getframe(), []
        while not names or names[-1] != "accumulate_gradients":
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        stacks.append(names[::-1])
        return original(scores, labels)

    monkeypatch.setattr(maml_module, "task_losses", task_losses)
    smooth(MAML, inner_steps=2, first_order=first_order).accumulate_gradients(draw_tasks(2))
    inner = ["accumulate_gradients", "gradients", "adapted", "gradient_descent", "losses", "task_losses"]
    assert stacks == [inner] * 4, "two steps of two tasks"


# Networks with layers that torch.func.vmap has no rule for


class Recurrent(Backbone):
    """The rows of an image, read one after the other."""

    feature_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(6, self.feature_size, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.rows(images[:, 0])[0][:, -1]


@pytest.mark.parametrize("name", ["maml", "imaml", "reptile", "meta-lstm"])
def test_a_backbone_that_tasks_cannot_share_takes_them_one_by_one(name):
    results = []
    for at_once in (1, 3):
        torch.manual_seed(0)
        learner = learners[name](Recurrent(), ways=3, tasks_at_once=at_once).double()
        episodes = draw_tasks(3)
        learner.accumulate_gradients(episodes)
        gradients = [parameter.grad for parameter in learner.parameters()]
        results.append((gradients, learner.eval().scores(episodes)))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


# Statistics over the training split


def test_simpleshot_centres_features_by_their_mean_over_the_training_split():
    subject = Subject(SimpleShot, 0.8, {})
    learner = subject.build().double().eval()
    split, episodes = subject.train_split, subject.unseen_tasks(torch.float64)
    images = torch.from_numpy(np.asarray(split.images)).double().permute(0, 3, 1, 2) / 255
    mean = learner.backbone((images - 0.5) / 0.25).mean(0)
    torch.testing.assert_close(learner.mean, mean.detach(), rtol=1e-4, atol=1e-5)
    for task in range(episodes.tasks):
        support, query = (
            F.normalize(learner.backbone(part[task]) - learner.mean, dim=-1)
            for part in (episodes.support, episodes.query)
        )
        centres = torch.stack([support[episodes.support_labels[task] == way].mean(0) for way in range(3)])
        expected = (-torch.cdist(query, centres).square()).log_softmax(-1)
        torch.testing.assert_close(learner.scores(episodes)[task].log_softmax(-1), expected)


def test_a_learner_that_never_saw_its_training_split_is_not_evaluated(toy_data):
    learner = Subject(SimpleShot, 0.8, {}).build_unobserved()
    for measure in (
        lambda: evaluation.evaluate(learner, toy_data.test, ways=3, tasks=4),
        lambda: evaluation.extract_features(learner, toy_data.test),
    ):
        with pytest.raises(ConfigError, match="SimpleShot needs mean, which is computed over the training split"):
            measure()


def test_training_computes_the_statistic_for_the_weights_that_it_keeps(toy_data, tmp_path):
    learner = Subject(SimpleShot, 0.8, {}).build_unobserved()
    options = {"max_epochs": 3, "tasks_per_epoch": 64, "validation_tasks": 20, "validation_ways": 3}
    train(learner, toy_data, learning_rate=0.01, run=tmp_path, progress=False, **options)
    kept = torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)["learner"]["mean"]
    torch.testing.assert_close(learner.mean, kept, rtol=0, atol=0)
    observe(learner, toy_data.train)
    torch.testing.assert_close(learner.mean, kept, rtol=0, atol=0)
    assert evaluation.evaluate(learner, toy_data.test, ways=3, tasks=20).mean > 0.8


@pytest.mark.parametrize("name", sorted(learners))
def test_images_of_another_size_are_refused_before_training(name, toy_split):
    split = toy_split([24] * 12, size=64)
    cls, options = checked(name)
    options = {option: value for option, value in options.items() if option != "accuracy"}
    learner = cls(Conv4(8, in_channels=1), **Subject(cls, 0.8, options).options)  # which is for 28 pixels
    learner.accumulate_gradients = lambda episodes: pytest.fail("work had started")
    data = Dataset("toy", train=split, val=split, test=split, train_val=split)
    with pytest.raises(ConfigError, match=r"Conv4 was built for 8 features .* gives 128 for .* toy/train, 1 x 64"):
        train(learner, data, ways=3, progress=False)
