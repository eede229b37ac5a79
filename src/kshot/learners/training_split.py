"""What some learners keep of their training split as a whole: computing it, and refusing a learner that lacks it."""

from __future__ import annotations

import torch

from kshot.data.dataset import Split
from kshot.data.tasks import AnySplit
from kshot.errors import ConfigError
from kshot.learners.base import Learner


@torch.no_grad()
def observe(learner: Learner, split: AnySplit) -> None:
    """Let the learner compute what it keeps of the split that it is trained on; see `Learner.observe_training_split`.

    Parameters
    ----------
    learner
        Any learner; most keep nothing, and cost nothing.
    split
        The classes that the learner is trained on.
    """
    if not keeps_statistics(type(learner)) or not isinstance(split, Split):
        return
    before = learner.training
    learner.eval()
    try:
        learner.observe_training_split(split)
    finally:
        learner.train(before)


def keeps_statistics(cls: type[Learner]) -> bool:
    """Whether learners of this class compute something over the training split."""
    return cls.observe_training_split is not Learner.observe_training_split


def check_observed(learner: Learner) -> None:
    """Refuse a learner whose statistics over the training split were never computed.

    Raises
    ------
    ConfigError
        If a buffer of the learner itself is NaN.
    """
    missing = [name for name, value in learner.named_buffers(recurse=False) if value.isnan().any()]
    if missing:
        raise ConfigError(
            f"{type(learner).__name__} needs {', '.join(missing)}, which is computed over the training split and was "
            f"not; train it by kshot.train, or call kshot.learners.training_split.observe after your own training"
        )
