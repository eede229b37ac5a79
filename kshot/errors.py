"""Errors that a user can act on: each message says what is wrong, where, and what to do."""


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
