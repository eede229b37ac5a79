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
    """A loss or a feature is no longer a finite number; training keeps the last good checkpoint."""
