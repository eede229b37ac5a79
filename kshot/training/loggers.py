"""Where the numbers of an epoch go besides metrics.csv."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from kshot.errors import ConfigError

LoggerName = Literal["tensorboard", "wandb"]


class Logger(Protocol):
    """Receives the numbers of each epoch."""

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Record what was measured in an epoch, counted from 1."""

    def close(self) -> None:
        """Write out what is still in memory."""


class TensorBoardLogger:
    """Event files in the run folder, for ``tensorboard --logdir``."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("the logger tensorboard needs a package: pip install kshot[tensorboard]") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WandbLogger:
    """A run of Weights & Biases, which a resumed run continues."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError("the logger wandb needs a package: pip install kshot[wandb]") from error
        name = folder.resolve().name
        identity = f"{name}-{zlib.crc32(str(folder.resolve()).encode()):08x}"
        self._run = wandb.init(project="kshot", name=name, id=identity, resume="allow", dir=str(folder), config=config)

    def log(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Add one point to the curve of each number."""
        self._run.log(dict(numbers), step=epoch)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def make_loggers(names: Sequence[LoggerName], folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The loggers of these names; ConfigError for an unknown name or a missing package."""
    makers: dict[str, Callable[[], Logger]] = {
        "tensorboard": lambda: TensorBoardLogger(folder),
        "wandb": lambda: WandbLogger(folder, config),
    }
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise ConfigError(f"there is no logger {unknown[0]!r}; choose from: {', '.join(makers)}")
    return [makers[name]() for name in names]
