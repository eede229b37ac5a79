"""The contract tests: every registered learner passes them, untouched, by being registered."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kshot.backbones import Conv4, ResNet12, batch_of_tasks
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.errors import ConfigError
from kshot.learners import FeatureLearner, InitializationLearner, Learner, MultiTask, Supervised, learners

CLASSES = 12


def build(name: str, **options: object) -> Learner:
    """A small learner of this name on 16x16 grey images, with the same weights every time."""
    torch.manual_seed(0)
    cls = learners[name]
    if "num_classes" in inspect.signature(cls).parameters:
        options = {"num_classes": CLASSES} | options
    if issubclass(cls, InitializationLearner):
        options = {"ways": 3} | options
    if "assignment_steps" in inspect.signature(cls).parameters:
        options = {"groups": 2, "assignment_steps": 2} | options  # every task descends twice, which takes its time
    if "modulation_start" in inspect.signature(cls).parameters:
        options = {"modulation_start": 0.1} | options  # at 0 nothing reaches the task embedding in the first step
    return cls(Conv4(8, in_channels=1, image_size=16), **options)


def with_support(episodes: Episodes, chosen: torch.Tensor) -> Episodes:
    """The same tasks with these support images, in this order."""
    return replace(episodes, support=episodes.support[:, chosen], support_labels=episodes.support_labels[:, chosen])


def normalised(episodes: Episodes, split, dtype=torch.float32) -> Episodes:
    ready = prepare_images(episodes, split.normalization)
    return ready.with_images(ready.support.to(dtype), ready.query.to(dtype))


@pytest.fixture(params=sorted(learners))
def name(request) -> str:
    return request.param


@pytest.fixture
def train_episodes(name, toy_data):
    """Three tasks (or, for learners of images, thirty images) as training sees them."""
    sampler = build(name).sampler(toy_data.train, TaskShape(3, 2, 4), seed=0)
    return lambda count=3: normalised(sampler.episodes(np.arange(count)), toy_data.train)


TRAINED: dict[str, Learner] = {}


@pytest.fixture
def trained(name, train_episodes) -> Learner:
    """The learner after a few steps on one batch; trained once, and with all tasks at once where it can."""
    if name not in TRAINED:
        options = {"tasks_at_once": 1000} if issubclass(learners[name], InitializationLearner) else {}
        learner = build(name, **options)
        batch = train_episodes(4 * learner.meta_batch)
        optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
        for _ in range(10):
            optimizer.zero_grad()
            learner.accumulate_gradients(batch)
            optimizer.step()
        TRAINED[name] = learner
    return copy.deepcopy(TRAINED[name])


@pytest.fixture
def unseen_episodes(toy_data):
    sampler = EpisodeSampler(toy_data.test, TaskShape(3, 3, 5), seed=0)
    return normalised(sampler.episodes(np.arange(6)), toy_data.test)


def test_scores_have_a_row_for_every_query_image(name, unseen_episodes):
    scores = build(name).eval().scores(unseen_episodes)
    assert scores.shape == (6, 15, 3)
    assert scores.isfinite().all()


def test_same_seed_gives_the_same_numbers(name, train_episodes, unseen_episodes):
    first, second = build(name), build(name)
    torch.testing.assert_close(first.meta_loss(train_episodes()), second.meta_loss(train_episodes()), rtol=0, atol=0)
    results = [learner.eval().scores(unseen_episodes) for learner in (first, second)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_scores_follow_a_permutation_of_the_labels(name, unseen_episodes):
    learner, permutation = build(name).double().eval(), torch.tensor([2, 0, 1])
    if not learner.follows_label_permutations:
        pytest.skip("its head has a row of its own for each label number, and says so")
    episodes = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    renamed = Episodes(
        episodes.support,
        permutation[episodes.support_labels],
        episodes.query,
        permutation[episodes.query_labels],
        episodes.classes,
        episodes.keys,
    )
    torch.testing.assert_close(
        learner.scores(renamed)[..., permutation], learner.scores(episodes), rtol=1e-5, atol=1e-5
    )


def test_scores_do_not_depend_on_the_order_of_the_support_images(name, unseen_episodes):
    learner, order = build(name).double().eval(), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    if not learner.ignores_support_order:
        pytest.skip("its mini-batches go by the place of an image in the support set, and it says so")
    episodes = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    shuffled = with_support(episodes, order)
    torch.testing.assert_close(learner.scores(shuffled), learner.scores(episodes), rtol=1e-5, atol=1e-5)


def test_support_sets_may_be_unequal(trained, unseen_episodes):
    keep = torch.tensor([0, 1, 2, 3, 4, 6, 7])  # three, two and two images of the three classes
    episodes = with_support(unseen_episodes, keep)
    accuracy = (trained.eval().scores(episodes).argmax(-1) == episodes.query_labels).float().mean()
    assert accuracy > 0.5


def test_training_beats_chance_clearly_on_separable_tasks(name, trained, train_episodes, unseen_episodes):
    batch = train_episodes(24)
    assert trained.train().meta_loss(batch) < build(name).meta_loss(batch)
    scores = trained.eval().scores(unseen_episodes)
    assert (scores.argmax(-1) == unseen_episodes.query_labels).float().mean() > 0.8


def test_saved_and_loaded_learner_gives_equal_scores(name, unseen_episodes, tmp_path):
    learner, other = build(name), build(name)
    for parameter in learner.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.save(learner.state_dict(), tmp_path / "learner.pt")
    other.load_state_dict(torch.load(tmp_path / "learner.pt", weights_only=True))
    results = [each.eval().scores(unseen_episodes) for each in (learner, other)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_gradients_reach_every_parameter(name, train_episodes):
    # a group of initialisations that no task is assigned to gets no gradient, which is the algorithm
    learner = build(name, **{"groups": 1} if "groups" in inspect.signature(learners[name]).parameters else {})
    learner.accumulate_gradients(train_episodes(30))
    learnt = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in learnt)
    assert all(parameter.grad.any() for parameter in learnt if parameter.dim() > 1)


def test_gradients_equal_those_of_a_plain_loop_over_tasks(name, train_episodes):
    """Per-task BatchNorm in one batched pass is what the network gives to each task alone, gradients averaged."""
    batch = train_episodes()
    if batch.support.shape[1] < 2:
        pytest.skip("learns single images, whose statistics are joint by definition")
    batched, looped = build(name).double(), build(name).double()
    batch = batch.with_images(batch.support.double(), batch.query.double())
    batched.accumulate_gradients(batch)
    for task in range(batch.tasks):
        looped.accumulate_gradients(batch.part(task, task + 1))
    for parameter in looped.parameters():
        if parameter.grad is not None:
            parameter.grad /= batch.tasks
    for (which, expected), actual in zip(looped.named_parameters(), batched.parameters()):
        torch.testing.assert_close(
            actual.grad, expected.grad, rtol=1e-9, atol=1e-11, msg=lambda m, w=which: f"{w}: {m}"
        )


def test_options_are_remembered_and_rebuild_the_learner(name):
    learner = build(name)
    again = learners[learners.name_of(learner)](**learner.options)
    assert again.options == learner.options
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in learner.state_dict().items()
    }


def test_features_of_an_image_do_not_depend_on_its_batch(name, unseen_episodes):
    learner = build(name).double().eval()
    if not isinstance(learner, FeatureLearner):
        pytest.skip("adapts its weights to a task")
    images = unseen_episodes.query.double().flatten(0, 1)
    torch.testing.assert_close(learner.features(images)[3:5], learner.features(images[3:5]))


def test_both_execution_strategies_give_the_same_gradients_and_scores(name, train_episodes, unseen_episodes):
    """One task after the other through ordinary kernels, or all at once under vmap."""
    if not issubclass(learners[name], InitializationLearner):
        pytest.skip("does not adapt weights")
    batch = train_episodes()
    batch = batch.with_images(batch.support.double(), batch.query.double())
    unseen = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    one, all_ = (build(name, tasks_at_once=count).double() for count in (1, 6))
    torch.testing.assert_close(one.accumulate_gradients(batch), all_.accumulate_gradients(batch))
    for (which, expected), actual in zip(one.named_parameters(), all_.parameters()):
        if which.endswith(".0.bias") and getattr(one, "inner_optimizer", None) == "adam":
            continue  # BatchNorm takes the bias of a convolution out again: Adam magnifies what rounding leaves of it
        torch.testing.assert_close(
            actual.grad, expected.grad, rtol=1e-9, atol=1e-11, msg=lambda m, w=which: f"{w}: {m}"
        )
    for learner in (one, all_):
        learner.eval()
    for statistics in one.statistics_offered:
        one.statistics_at_test = all_.statistics_at_test = statistics
        torch.testing.assert_close(one.scores(unseen), all_.scores(unseen), rtol=1e-9, atol=1e-11)


def test_compiling_the_backbone_changes_nothing_or_is_refused(name, unseen_episodes):
    learner = build(name)
    expected = learner.scores(unseen_episodes)
    learner.backbone.compile(backend="eager")
    if learner.can_compile:
        torch.testing.assert_close(learner.scores(unseen_episodes), expected)
    else:
        with pytest.raises(ConfigError, match="leave out compile"):
            learner.scores(unseen_episodes)


def test_tasks_of_another_number_of_classes_are_refused(name, unseen_episodes):
    if not issubclass(learners[name], InitializationLearner):
        pytest.skip("learns tasks of any number of classes")
    with pytest.raises(ConfigError, match="5-way tasks and cannot learn 3-way"):
        build(name, ways=5).scores(unseen_episodes)


def test_misspelt_statistics_are_refused(name):
    if "statistics" not in inspect.signature(learners[name]).parameters:
        pytest.skip("has no such option")
    with pytest.raises(ConfigError, match="statistics is 'Joint'; choose one of: task, joint"):
        build(name, statistics="Joint")


# What is particular to one learner.


def test_mtl_scores_a_task_by_the_rows_of_its_classes(toy_data):
    learner = build("mtl").double()
    episodes = normalised(
        EpisodeSampler(toy_data.train, TaskShape(3, 2, 2), 0).episodes(np.arange(2)), toy_data.train, torch.float64
    )
    scores, labels = learner.training_scores(episodes)
    for task in range(2):
        images = torch.cat([episodes.support[task], episodes.query[task]])
        features = nn.functional.normalize(learner.backbone(images), dim=-1)
        expected = torch.stack([features @ learner.weight[row] for row in episodes.classes[task]], 1)
        torch.testing.assert_close(scores[task], expected)
    assert labels.tolist()[0] == [0, 0, 1, 1, 2, 2] * 2, "labels are positions in the task: nothing is merged"


def test_mtl_options_change_what_they_say(toy_data):
    episodes = normalised(EpisodeSampler(toy_data.train, TaskShape(3, 2, 2), 0).episodes(np.arange(2)), toy_data.train)
    plain = build("mtl", normalize_features=False).training_scores(episodes)[0]
    assert plain.abs().max() > build("mtl").training_scores(episodes)[0].abs().max()
    joint = build("mtl", statistics="joint")
    images = episodes.images().flatten(0, 1)
    features = nn.functional.normalize(copy.deepcopy(joint).backbone(images), dim=-1).unflatten(0, (2, -1))
    torch.testing.assert_close(joint.training_scores(episodes)[0], features @ joint.weight[episodes.classes].mT)


def test_mtl_weights_start_at_the_scale_of_the_paper():
    learner = MultiTask(Conv4(64), num_classes=64, ways=4)
    bound = (1 / 256) ** 0.5 * (64 / 4) ** 0.5
    assert 0.98 * bound < learner.weight.abs().max() <= bound


def test_supervised_loss_is_cross_entropy_over_all_classes(toy_data):
    learner = build("supervised").double()
    batch = normalised(
        learner.sampler(toy_data.train, TaskShape(), 0).episodes(np.arange(20)), toy_data.train, torch.float64
    )
    scores = learner.classifier(copy.deepcopy(learner).backbone(batch.support[:, 0]))
    expected = nn.functional.cross_entropy(scores, batch.support_labels[:, 0])
    torch.testing.assert_close(learner.meta_loss(batch), expected)
    assert isinstance(learner, Supervised)
    assert learner.tasks_per_epoch(toy_data.train) == 12 * 24


def test_a_supervised_step_is_one_pass_of_the_ramp_of_dropblock(toy_data):
    torch.manual_seed(0)
    learner = Supervised(ResNet12(widths=(2, 2, 2, 2), in_channels=1, image_size=16), 12).train()
    sampler = learner.sampler(toy_data.train, TaskShape(), seed=0)
    for step in range(3):
        learner.meta_loss(normalised(sampler.episodes(np.arange(8 * step, 8 * step + 8)), toy_data.train))
    counters = [value for name, value in learner.state_dict().items() if name.endswith("training_tasks")]
    assert {int(counter) for counter in counters} == {3}


def test_protonet_scores_by_squared_distance(toy_data, unseen_episodes):
    learner = build("protonet").double()
    episodes = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    with batch_of_tasks(episodes.tasks):
        images = episodes.images()
        features = copy.deepcopy(learner).backbone(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    support, query = features[:, :9], features[:, 9:]
    prototypes = torch.stack([support[:, 3 * way : 3 * way + 3].mean(1) for way in range(3)], 1)
    squared = torch.cdist(query, prototypes) ** 2
    expected = (-squared).log_softmax(-1)
    torch.testing.assert_close(learner.training_scores(episodes)[0].log_softmax(-1), expected)
