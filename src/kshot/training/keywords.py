"""The keywords of `kshot.train`, as type checkers, editors and notebooks see them, from the fields of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from kshot.data.tasks import AnyDataset
from kshot.learners.base import Learner
from kshot.training.options import TrainingOptions

Keywords = ParamSpec("Keywords")
Returned = TypeVar("Returned")


@dataclass(frozen=True, kw_only=True)
class TrainKeywords(TrainingOptions):
    """Every keyword of `kshot.train`: the options, and where the run is kept."""

    run: Path | str | None = None
    resume: bool = False


def with_keywords_of(
    keywords: Callable[Keywords, Any],
) -> Callable[[Callable[..., Returned]], Callable[Concatenate[Learner, AnyDataset, Keywords], Returned]]:
    """Decorator that declares the ``**options`` of a function of learner and data: one keyword per field of a class."""

    def declare(function: Callable[..., Returned]) -> Callable[..., Returned]:
        written, fields = inspect.signature(function), inspect.signature(keywords)
        positional = [part for part in written.parameters.values() if part.kind is part.POSITIONAL_OR_KEYWORD]
        declared = written.replace(parameters=[*positional, *fields.parameters.values()])
        function.__signature__ = declared  # type: ignore[attr-defined]
        return function

    return declare
