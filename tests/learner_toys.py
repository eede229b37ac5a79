"""Every learner in small, and tasks for it."""

from __future__ import annotations

from typing import Any

import torch

from kshot.data.dataset import Split
from kshot.data.episodes import Episodes
from kshot.learners import Learner, learners
from kshot.testing.subject import CLASSES as CLASSES
from kshot.testing.subject import Subject, prepared

# options under which a learner is tested besides its defaults, or in place of them: it computes something else by them,
# reaches all of its parameters in the first step, or saves time
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "anil-frozen-head": ("anil", {"frozen_head": True}),
    "anil-without-split": ("anil", {"split": False}),
    "maml-first-order": ("maml", {"first_order": True}),
    # whose recurrent networks learn more slowly
    "matching-net-full-context": ("matching-net", {"full_context": True, "accuracy": 0.7}),
    # under a strong penalty, a class of more images has higher scores for that alone
    "metaoptnet-ridge": ("metaoptnet", {"head": "ridge", "l2": 1.0}),
    "r2d2-all-shots": ("r2d2", {"random_shots": False}),
    # whose running statistics lag behind in its first steps
    "relation-net": ("relation-net", {"accuracy": 0.6}),
    # at 0 nothing reaches the task embedding in the first step
    "tadam": ("tadam", {"modulation_start": 0.1}),
    # every task descends twice, which takes its time
    "tsa-maml": ("tsa-maml", {"groups": 2, "assignment_steps": 2}),
    "tsa-maml-offset": ("tsa-maml", {"groups": 2, "assignment_steps": 2, "symmetrize": "shifts", "sharing": "offset"}),
    "tsa-maml-one-group": ("tsa-maml", {"groups": 1, "assignment_steps": 2}),
}


def checked(name: str) -> tuple[type[Learner], dict[str, Any]]:
    """The class of a learner or variant, and what `check_learner` is given with it."""
    registered, options = VARIANTS.get(name, (name, {}))
    return learners[registered], options


def build(name: str, **options: object) -> Learner:
    """A small learner or variant of this name on 16x16 grey images, with the same weights every time."""
    cls, given = checked(name)
    constructor = {option: value for option, value in given.items() if option != "accuracy"}
    return Subject(cls, 0.8, constructor).build(**options)


def normalised(episodes: Episodes, split: Split, dtype: torch.dtype = torch.float32) -> Episodes:
    """The tasks with images as a learner sees them."""
    return prepared(episodes, split, dtype=dtype)
