"""The files of a run: config.yaml, environment.json, metrics.csv, timing.csv and checkpoints/{best,last}.pt."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import CheckpointError, ConfigError
from kshot.files import checksum, refusal, remove_leftovers, write_json
from kshot.measures import SQUARED_ERROR
from kshot.runs import checkpoints, history, lock
from kshot.runs.config import free_on_resume, read_config, write_config
from kshot.runs.content import check_history, check_resumable
from kshot.runs.environment import describe_environment

SQUARED = f"validation_{SQUARED_ERROR.name}"


class RunFolder:
    """What training writes and others read; `Run` is what users meet."""

    def __init__(self, path: Path | str | None) -> None:
        self.path = Path(path) if path is not None else None
        self._place: list[tuple[int, int]] = []  # what identifies the folder that training took into use, and its lock
        self._trained_from: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """What tables call the run: the name of its folder, or of its learner if it has none."""
        return self.path.resolve().name if self.path is not None else str(self.config["learner"]["name"])

    @property
    def folder(self) -> Path:
        """The run folder; ConfigError for a run that has none."""
        if self.path is None:
            raise ConfigError("the run has no folder, because training was given none; name one with run=...")
        return self.path

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation accuracy."""
        return self.folder / "checkpoints" / "best.pt"

    @property
    def last(self) -> Path:
        """The checkpoint that training goes on from."""
        return self.folder / "checkpoints" / "last.pt"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The sections "data", "backbone", "learner" and "training" of config.yaml."""
        return read_config(self.folder)

    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv, one value per epoch; DataError before the first epoch's end, and for damage."""
        columns = self._columns("metrics.csv", ("epoch", "loss", "validation_ci95"))
        measured = {"accuracy", "validation_accuracy"} if "validation_accuracy" in columns else {SQUARED}
        if not measured <= columns.keys():
            missing = ", ".join(sorted(measured - columns.keys()))
            raise history.damage(self.folder / "metrics.csv", f"it has no column {missing}")
        return columns

    def timing(self) -> dict[str, NDArray[np.float64]]:
        """The columns of timing.csv, one value per epoch; DataError before the first epoch's end, and for damage."""
        return self._columns("timing.csv", ("epoch", *history.TIMING))

    def _columns(self, name: str, required: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        columns = history.read_columns(self.folder / name, required)
        return history.completed(self.folder / name, columns, self._history)

    @cached_property
    def _history(self) -> Sequence[Mapping[str, Any]]:
        """One row per epoch from the last checkpoint; none if that is missing or damaged, which says so when used."""
        try:
            content = checkpoints.load(self.last)
            rows = check_history(content, self.last)
        except CheckpointError:
            return ()
        self.refuse_mixed(content.get("config"), self.last)
        return rows

    def refuse_mixed(self, saved: Any, checkpoint: Path) -> None:
        """CheckpointError if config.yaml says something else than a checkpoint of the run, but for what may change."""
        free = free_on_resume(self.config["training"])
        differing = [
            f"{section}.{name} is {self.config[section][name]!r} in config.yaml and {saved[section][name]!r} there"
            for section in ("data", "backbone", "learner", "training")
            # another version of kshot may know more options, or fewer
            for name in sorted(self.config[section].keys() & saved[section].keys() - free)
            if self.config[section][name] != saved[section][name]
        ]
        if differing:
            raise CheckpointError(
                f"{self.path} mixes two runs, for {checkpoint} was trained from another config.yaml: "
                f"{'; '.join(differing)}; put the right one back, or train the run again"
            )

    def weights_of(self, checkpoint: Path) -> str:
        """What identifies the content of a checkpoint; CheckpointError if it cannot be read."""
        with checkpoints.reading(checkpoint):
            return checksum(checkpoint)[:16]

    def locked(self, writes: bool = True) -> AbstractContextManager[None]:
        """Within this context no other process trains into the folder; ConfigError if one does.

        writes: False in all processes but one, which only read.
        """
        return lock.locked(self.path, doing="being trained") if self.path is not None and writes else nullcontext()

    def checkpoint_to_continue(self, config: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
        """The checkpoint that training goes on from, or None for a new run; nothing is written.

        Parameters
        ----------
        config
            The sections of config.yaml.
        resume
            Go on from the last checkpoint; a run that was killed before its first one starts again.

        Raises
        ------
        ConfigError
            If a trained run would be overwritten, or continued with other options, or the folder is the user's home.
        """
        if self.folder.resolve() == Path(os.path.expanduser("~")).resolve():
            raise ConfigError(f"{self.path} is your home folder; name a folder for this run alone, such as runs/mine")
        if not self.last.exists():
            return None
        if not resume:
            raise ConfigError(f"{self.path} holds a trained run; continue it with resume=True or choose another folder")
        checkpoint = checkpoints.load(self.last, config)
        check_resumable(checkpoint, self.last)
        self._refuse_other_options(checkpoint["config"], config)
        return checkpoint

    def take_into_use(self, config: dict[str, Any]) -> None:
        """Write config.yaml and environment.json, and remove what killed processes left; ConfigError if that fails."""
        try:
            for folder in (self.folder, self.last.parent, self.folder / "evaluation"):
                remove_leftovers(folder)
            write_config(self.folder / "config.yaml", config)
            write_json(self.folder / "environment.json", describe_environment())
            self._place, self._trained_from = self._present_place(), config
        except OSError as error:
            raise ConfigError(f"the run folder {self.path} cannot be written: {refusal(error)}") from error

    def _present_place(self) -> list[tuple[int, int]]:
        """What identifies the folder and its lock, wherever they are moved."""
        return [(state.st_dev, state.st_ino) for state in map(os.stat, (self.folder, self.folder / lock.LOCK))]

    def require_in_place(self) -> None:
        """CheckpointError if the folder was removed, moved or replaced since `take_into_use`.

        Without it, files would be written to a new folder of the old name, which is no run. A config.yaml that is gone
        is written again.
        """
        try:
            same = self._present_place() == self._place
            if same and not (self.folder / "config.yaml").exists():
                self.take_into_use(self._trained_from)
        except OSError:
            same = False
        if not same:
            raise CheckpointError(
                f"the run folder {self.path} was removed, moved or replaced while it was trained into, and nothing "
                f"more is written there; put it back and resume the run, or train it again"
            )

    def _refuse_other_options(self, saved: dict[str, Any], given: dict[str, Any]) -> None:
        free = free_on_resume(given["training"])
        names = {
            "data": saved["data"].keys(),  # an earlier version of kshot told less of the data
            "training": saved["training"].keys() | given["training"].keys(),
        }
        differing = [
            f"{section}.{name} was {saved[section].get(name)!r} and is {given[section].get(name)!r}"
            for section in names
            for name in sorted(names[section])
            if saved[section].get(name) != given[section].get(name) and name not in free
        ]
        if differing:
            raise ConfigError(
                f"{self.path} cannot be resumed with other options: {'; '.join(differing)}; "
                f"resume it with the options of its config.yaml, or choose another folder"
            )

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, which a resumed run repeats to the byte, and timing.csv, which no run repeats."""
        history.write_history(self.folder, rows)
