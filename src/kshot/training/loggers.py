"""Where the numbers of an epoch go besides metrics.csv."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from kshot.errors import ConfigError
from kshot.training.state import TrainingState

_MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}


def check_loggers(names: Sequence[str]) -> None:
    """ConfigError for an unknown name or a missing package, before a logger or the run writes anything."""
    for name in names:
        if name not in _MODULES:
            raise ConfigError(f"there is no logger {name!r}; choose from: {', '.join(_MODULES)}")
        _package(name)


def _package(logger: str) -> Any:
    try:
        return importlib.import_module(_MODULES[logger])
    except ImportError as error:
        raise ConfigError(f"the logger {logger} needs a package: pip install kshot[{logger}]") from error


class Logger(Protocol):
    """What receives the numbers of each epoch."""

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Record what was measured in an epoch, counted from 1."""

    def close(self) -> None:
        """Write out what is still in memory."""


class TensorBoardLogger:
    """Event files in the run folder, for ``tensorboard --logdir``."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._writer = _package("tensorboard").SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("config", f"```\n{yaml.safe_dump(config, sort_keys=False)}```")

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WandbLogger:
    """A run of Weights & Biases; resuming the training continues it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        name = folder.resolve().name
        identity = f"{name}-{zlib.crc32(str(folder.resolve()).encode()):08x}"
        self._run = _package("wandb").init(
            project="kshot", name=name, id=identity, resume="allow", dir=str(folder), config=config
        )

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        self._run.log(dict(numbers), step=epoch)

    def close(self) -> None:
        """Send what is not sent yet."""
        self._run.finish()


_LOGGERS: dict[str, Callable[[Path, dict[str, Any]], Logger]] = {"tensorboard": TensorBoardLogger, "wandb": WandbLogger}


class Loggers:
    """All loggers of a run.

    Parameters
    ----------
    state
        The options, which name the loggers; the run folder; and whether this process writes.
    """

    def __init__(self, state: TrainingState) -> None:
        self._loggers: list[Logger] = []
        for name in (state.options.loggers or []) if state.writes else []:
            assert state.folder is not None, "train() refuses loggers without a run folder"
            self._loggers.append(_LOGGERS[name](state.folder.folder, state.config))

    def log(self, row: Mapping[str, Any]) -> None:
        """Give each logger an epoch's row of the history."""
        numbers = {name: value for name, value in row.items() if name != "epoch"}
        for logger in self._loggers:
            logger.log(row["epoch"], numbers)

    def close(self) -> None:
        """Close each logger."""
        for logger in self._loggers:
            logger.close()
