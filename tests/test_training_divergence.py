"""A training that diverges names the step, and saves nothing that is not finite."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from training_toys import STEPS, ToyBackbone, at_step, toy_learner, toy_train

from kshot.errors import DivergenceError
from kshot.learners import ProtoNet


def test_a_loss_that_is_not_finite_names_the_step(tmp_path: Path) -> None:
    learner = toy_learner()

    def poison() -> None:
        learner.weight.data.fill_(float("nan"))

    with pytest.raises(DivergenceError, match=r"loss is nan in epoch 2, step 3.*kept"):
        toy_train(at_step(learner, STEPS + 3, poison), run=tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert saved["counters"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in saved["learner"].values())
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def test_features_that_are_not_finite_name_the_step_too(tmp_path: Path) -> None:
    """A learner whose loss needs a solver meets the fault before there is a loss."""
    torch.manual_seed(0)
    learner = ProtoNet(ToyBackbone())

    def poison() -> None:
        learner.backbone.convolve.weight.data.fill_(float("nan"))

    with pytest.raises(DivergenceError, match=r"not all finite.*in epoch 2, step 1.*kept"):
        toy_train(at_step(learner, STEPS + 1, poison), run=tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in saved["learner"].values())


def break_the_update(learner: Any) -> None:
    """The gradients of the step at hand, and so the weights after it, but not its loss, are no numbers."""
    learner.weight.register_hook(lambda gradient: gradient * float("nan"))


@pytest.mark.parametrize(
    "options", [{}, {"train_on": "train+val", "patience": 0, "schedule": "constant"}], ids=["val", "train+val"]
)
def test_weights_that_are_not_finite_are_never_saved(options: dict[str, Any], tmp_path: Path) -> None:
    learner = toy_learner(12 if options else 8)
    at_step(learner, 2 * STEPS, lambda: break_the_update(learner))
    with pytest.raises(DivergenceError, match=rf"weights that are not finite in epoch 2, step {STEPS};.*kept"):
        toy_train(learner, run=tmp_path, **options)
    for name in ("best", "last"):
        saved = torch.load(tmp_path / "checkpoints" / f"{name}.pt", weights_only=True)
        assert all(torch.isfinite(tensor).all() for tensor in saved["learner"].values())
    assert saved["counters"]["epoch"] == 1


def test_a_pause_saves_no_weights_that_are_not_finite(tmp_path: Path) -> None:
    learner = toy_learner()

    def break_and_stop() -> None:
        break_the_update(learner)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(DivergenceError, match=r"weights that are not finite in epoch 2, step 2;"):
        toy_train(at_step(learner, STEPS + 2, break_and_stop), run=tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.pt", weights_only=True)
    assert (saved["counters"]["epoch"], saved["counters"]["step"]) == (1, 0)


def test_a_failed_validation_names_the_step(tmp_path: Path) -> None:
    """Running statistics are no weights: only validation meets what is wrong with them."""
    learner = toy_learner()

    def poison() -> None:
        learner.backbone.layers[0].running_mean.fill_(float("nan"))

    with pytest.raises(DivergenceError, match=rf"validation failed \(.*in epoch 2, step {STEPS};.*kept"):
        toy_train(at_step(learner, STEPS + 2, poison), run=tmp_path)
