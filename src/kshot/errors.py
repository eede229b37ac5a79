"""Errors that a user can act on, and checks of options: a message says what is wrong, where, and what to do."""

from collections.abc import Sequence


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

    task: which task diverged, where one did: its place in the batch, until somebody who knows more puts its number.
    """

    def __init__(self, message: str, task: int | None = None) -> None:
        super().__init__(message)
        self.task = task

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.task is None else f"task {self.task}: {message}"


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{option} is {value!r}; choose one of: {', '.join(choices)}")


def check_positive(option: str = "", *values: int, **options: float | Sequence[float]) -> None:
    """ConfigError unless every one of `values` is at least 1, and every number in `options` is above 0."""
    for value in values:
        if value < 1:
            raise ConfigError(f"{option} is {value}, but must be at least 1")
    for name, given in options.items():
        numbers = given if isinstance(given, Sequence) else [given]
        if not numbers:
            raise ConfigError(f"{name} is empty; give at least one value")
        for number in numbers:
            if not number > 0:  # nor is nan
                raise ConfigError(f"{name} is {number}, but must be positive")


def check_above_zero(option: str, value: float) -> None:
    """ConfigError unless `value` is above 0."""
    if not value > 0:  # nor is nan
        raise ConfigError(f"{option} is {value}, but must be above 0")


def check_not_negative(option: str, value: float) -> None:
    """ConfigError unless `value` is at least 0."""
    if not value >= 0:  # nor is nan
        raise ConfigError(f"{option} is {value}, but must be at least 0")


def check_rate(option: str, rate: float) -> None:
    """ConfigError unless `rate` is a share below 1."""
    if not 0 <= rate < 1:
        raise ConfigError(f"{option} is {rate}; a share must be at least 0 and below 1")
