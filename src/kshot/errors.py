"""Errors that a user can act on, and checks of options: a message says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence

# what torch says if an allocation fails, on a CPU and on a GPU
NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "Storage size calculation overflowed")


class KshotError(Exception):
    """Base of every error that kshot raises on purpose; the command line prints it without a traceback."""


class DataError(KshotError):
    """A dataset is missing, damaged, or does not hold what was asked of it."""


class ConfigError(KshotError):
    """An option is unknown, has the wrong type, or contradicts another."""


class CheckpointError(KshotError):
    """A checkpoint is missing, damaged, or belongs to another learner, backbone or version."""


class DivergenceError(KshotError):
    """A loss or a feature is no longer a finite number; training keeps the last good checkpoint.

    Attributes
    ----------
    task
        The task that diverged, by its place in the batch until a caller knows its number; None if it was no single one.
    """

    def __init__(self, message: str, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.task is None else f"task {self.task}: {message}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ " (did you mean 'conv4'?)" if one of the `known` names is close to `name`, else an empty string."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; choose one of: {', '.join(choices)}{did_you_mean(value, choices)}")


def check_positive(**options: float | Sequence[float]) -> None:
    """ConfigError unless every number is above 0, and no sequence empty: ``check_positive(width=8, depths=[1, 2])``."""
    _check(options, lambda number: number > 0, "positive")


def check_not_negative(**options: float | Sequence[float]) -> None:
    """ConfigError unless every number is at least 0; options as for `check_positive`."""
    _check(options, lambda number: number >= 0, "at least 0")


def check_rate(**options: float | Sequence[float]) -> None:
    """ConfigError unless every number is at least 0 and below 1; options as for `check_positive`."""
    _check(options, lambda number: 0 <= number < 1, "at least 0 and below 1")


def _check(options: Mapping[str, float | Sequence[float]], holds: Callable[[float], bool], requirement: str) -> None:
    """ConfigError for the first number that does not meet the requirement, which nan never does."""
    for option, value in options.items():
        numbers = value if isinstance(value, Sequence) else [value]
        if not numbers:
            raise ConfigError(f"{option} is empty; give at least one value")
        for number in numbers:
            if not holds(number):
                raise ConfigError(f"{option} is {number}, but must be {requirement}")
