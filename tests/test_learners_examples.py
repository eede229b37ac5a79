"""The example of a learner from kshot's parts, the example of a new learner, and the page about it, as printed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kshot.backbones import Conv4
from kshot.data.dataset import Dataset
from kshot.learners import MAML, FeatureLearner, learners
from kshot.learners.initialization import Classifier
from kshot.testing.subject import CLASSES, Subject, made_up_split

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scratch_registry(monkeypatch):
    """Classes that are registered within a test, and forgotten after it."""
    monkeypatch.setattr(learners, "_classes", dict(learners._classes))


def example(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / name)))


def test_maml_by_hand_has_the_gradients_of_maml():
    by_hand = example("maml_by_hand.py")
    torch.manual_seed(0)
    network = Classifier(Conv4(8, in_channels=1, image_size=16), 3).double()
    options = {"inner_rate": by_hand.INNER_RATE, "inner_steps": by_hand.INNER_STEPS}
    maml = MAML(Conv4(8, in_channels=1, image_size=16), ways=3, **options).double()
    maml.network.load_state_dict(network.state_dict())
    tasks = Subject(MAML, 0.8, {}).training_tasks(dtype=torch.float64)
    torch.testing.assert_close(by_hand.meta_gradient(network, tasks), maml.accumulate_gradients(tasks)["loss"])
    for (name, actual), expected in zip(network.named_parameters(), maml.network.parameters()):
        torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-9, atol=1e-12, msg=name)
        assert actual.grad.any() or name.endswith(".0.bias")


def test_maml_by_hand_fits_on_a_screen_or_two():
    lines = (ROOT / "examples" / "maml_by_hand.py").read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 70


@pytest.fixture
def small_glyphs(monkeypatch):
    """`kshot.load` gives a small dataset, in the place of a thousand characters."""
    sizes = {"train": CLASSES, "val": 10, "test": 6}
    train, val, test = (made_up_split(name, count, seed) for seed, (name, count) in enumerate(sizes.items()))
    monkeypatch.setattr(
        "kshot.load", lambda name: Dataset(name, train=train, val=val, test=test, train_val=train), raising=False
    )


@pytest.mark.usefixtures("small_glyphs")
def test_maml_by_hand_trains_and_tests():
    assert min(example("maml_by_hand.py").main(steps=2, meta_batch=2)) > 0.9, "classes that are far apart"


@pytest.mark.usefixtures("small_glyphs")
def test_my_learner_is_checked_trained_and_tested():
    options = {"tasks_per_epoch": 8, "max_epochs": 2}
    assert example("my_learner.py").main(**options) > 0.9


def test_the_page_on_learners_runs_as_printed():
    text = (ROOT / "docs" / "adding-a-learner.md").read_text(encoding="utf-8")
    blocks, names = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE), {"__name__": "page"}
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "adding-a-learner.md", "exec"), names)
    assert issubclass(learners["cosine-net"], FeatureLearner)


def test_the_page_shows_the_class_of_the_example():
    page, script = (
        (ROOT / place).read_text(encoding="utf-8") for place in ("docs/adding-a-learner.md", "examples/my_learner.py")
    )
    shown = re.search(r"@learners\.register\(.*?\n```", page, re.DOTALL)[0].removesuffix("\n```")
    assert shown in script
