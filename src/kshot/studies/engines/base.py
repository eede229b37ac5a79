"""What runs cells: an engine starts processes of cells somewhere, and says which have ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

from kshot.errors import check_not_negative, check_positive
from kshot.studies.cell_folder import CellFolder


@dataclass(frozen=True)
class EngineOptions:
    """Where and how cells run.

    Parameters
    ----------
    workers
        Cells at once; None for as many as cores, or GPUs, allow.
    threads
        Threads of each cell. Runs repeat to the bit with the same number of threads only.
    gpus
        GPUs of each cell.
    address
        Ray: the address of a cluster, or "auto"; None to start one on this machine.
    partition
        SLURM: the partition; None for the default one.
    hours
        SLURM: the time limit of a job, after which the cell goes on in another one.
    slurm_local
        SLURM: run the jobs as processes of this machine, by submitit's local executor.
    seconds_between_copies
        Ray: how often a checkpoint of a cell is brought back from its node, at most.
    """

    workers: int | None = None
    threads: int = 1
    gpus: int = 0
    address: str | None = None
    partition: str | None = None
    hours: float = 24.0
    slurm_local: bool = False
    seconds_between_copies: float = 30.0

    def __post_init__(self) -> None:
        check_positive(threads=self.threads, hours=self.hours, seconds_between_copies=self.seconds_between_copies)
        check_not_negative(gpus=self.gpus)
        if self.workers is not None:
            check_positive(workers=self.workers)


@dataclass(frozen=True)
class Ended:
    """A process of a cell that has ended.

    Attributes
    ----------
    name
        Of the cell.
    code
        Its exit code, see `kshot.studies.cell`; negative for the signal that killed it, None if its machine is lost.
    place
        Where it ran.
    message
        What it printed last, if it did not end well.
    """

    name: str
    code: int | None
    place: str
    message: str = ""


@dataclass(frozen=True)
class Job:
    """A cell that is to be run.

    Attributes
    ----------
    folder
        Of the cell.
    dataset
        What must be prepared where it runs.
    megabytes
        Disk space that it takes, about.
    avoid
        Places where it failed.
    """

    folder: CellFolder
    dataset: str
    megabytes: float = 0.0
    avoid: frozenset[str] = field(default_factory=frozenset)


class Engine(ABC):
    """Runs cells. A context: at the end nothing of it is left running.

    Parameters
    ----------
    options
        Where and how.
    root
        The folder of prepared datasets, on every machine.
    version
        What kshot must be everywhere, see `kshot.studies.cell.version`.
    """

    def __init__(self, options: EngineOptions, *, root: Path | str | None, version: str) -> None:
        self.options = options
        self.root = root
        self.version = version

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def start(self, job: Job) -> bool:
        """Start a cell; False if there is no room for it now.

        Raises ConfigError or DataError if there will be none, with what to do about it.
        """

    @abstractmethod
    def ended(self) -> list[Ended]:
        """The cells that have ended since the last call; does not wait."""

    @abstractmethod
    def stop(self) -> None:
        """Ask what runs to save itself and to end, and wait for that."""
