"""A run is a folder: config.yaml, environment.json, metrics.csv, timing.csv and checkpoints/{best,last}.pt."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from kshot import data as datasets
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.files import write_json, write_text
from kshot.learners.base import Learner
from kshot.runs import checkpoints
from kshot.runs.config import build_learner, describe_learner, free_on_resume, read_config
from kshot.runs.environment import describe_environment

TIMING = ("seconds", "validation_seconds", "tasks_per_second", "images_per_second")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.best = self.path / "checkpoints" / "best.pt"
        self.last = self.path / "checkpoints" / "last.pt"

    def start(self, config: dict[str, Any], resume: bool, writes: bool = True) -> dict[str, Any] | None:
        """Write config.yaml and environment.json; returns the checkpoint to continue from, or None for a new run.

        writes: False in all processes but one, which only read.
        With `resume` and no checkpoint yet, the run was killed before its first one, and starts again.
        Raises ConfigError where a trained run would be overwritten, or continued with other options.
        """
        if self.last.exists() and not resume:
            raise ConfigError(f"{self.path} holds a trained run; continue it with resume=True or choose another folder")
        checkpoint = None
        if self.last.exists():
            checkpoint = checkpoints.load(self.last, config)
            self._refuse_other_options(checkpoint["config"], config)
        if writes:
            self._take_into_use(config)
        return checkpoint

    def _take_into_use(self, config: dict[str, Any]) -> None:
        try:
            for leftover in self.last.parent.glob(".*.tmp"):  # of a process that was killed while it saved
                leftover.unlink()
            write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            write_json(self.path / "environment.json", describe_environment())
        except OSError as error:
            raise ConfigError(f"the run folder {self.path} cannot be written ({error}); choose another one") from error

    def _refuse_other_options(self, saved: dict[str, Any], own: dict[str, Any]) -> None:
        free = free_on_resume(own["training"])
        names = {
            "data": saved["data"].keys(),  # an earlier version of kshot told less of the data
            "training": saved["training"].keys() | own["training"].keys(),
        }
        differing = [
            f"{section}.{name} was {saved[section].get(name)!r} and is {own[section].get(name)!r}"
            for section in names
            for name in sorted(names[section])
            if saved[section].get(name) != own[section].get(name) and name not in free
        ]
        if differing:
            raise ConfigError(
                f"{self.path} cannot be resumed with other options: {'; '.join(differing)}; "
                f"resume it with the options of its config.yaml, or choose another folder"
            )

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, which a resumed run repeats to the byte, and timing.csv, which no run repeats.

        Both are written whole, so that neither a kill nor a full disk leaves half a line.
        """
        if not history:
            return
        metrics = [name for name in history[0] if name not in TIMING]
        try:
            write_text(self.path / "metrics.csv", _as_csv(history, metrics))
            write_text(self.path / "timing.csv", _as_csv(history, ["epoch", *TIMING]))
        except OSError as error:
            raise CheckpointError(
                f"the metrics of {self.path} could not be written ({error}); the checkpoints are intact: "
                f"free some space and resume the run"
            ) from error


def _as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def load_run(
    run: Path | str,
    data: AnyDataset | None = None,
    checkpoint: Literal["best", "last"] = "best",
    root: Path | str | None = None,
    learner: Learner | None = None,
) -> tuple[Learner, AnyDataset]:
    """The trained learner of a run folder, in evaluation mode on the CPU, and the dataset that it was trained on.

    run: the folder that `train` wrote.
    data: None to load the dataset that the run names, prepared under `root`.
    checkpoint: the weights of the best validation accuracy, or those at the end.
    root: the folder of prepared datasets, see ``kshot.data.load``.
    learner: one to put the weights into, for a run whose backbone is not registered; None to build it.
    Raises CheckpointError where the run or its checkpoint is missing, damaged or of another learner.
    """
    learner, config = _trained(run, checkpoint, learner)
    return learner, data if data is not None else datasets.load(config["data"]["name"], root=root)


def load_learner(
    run: Path | str,
    checkpoint: Literal["best", "last"] = "best",
    root: Path | str | None = None,
    learner: Learner | None = None,
) -> tuple[Learner, ImageForm]:
    """The trained learner of a run folder, as `load_run` returns it, and the images it takes; needs no dataset.

    root: the folder of prepared datasets, for a run of an earlier version of kshot, which does not tell the form of its
        images: it is then read from the dataset.
    Raises CheckpointError as `load_run` does, and where neither the run nor a dataset tells the form of the images;
    ConfigError where the run was trained on tasks of regression, which have no images.
    """
    learner, config = _trained(run, checkpoint, learner)
    data = config["data"]
    if "normalization" in data:
        stored = data["normalization"]
        normalization = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["augment"])
        return learner, ImageForm(data["name"], tuple(data["image_shape"]), normalization)
    try:
        split = datasets.load_images(data["name"], root=root).train
    except DataError as error:
        raise CheckpointError(
            f"{run} was trained by an earlier version of kshot and does not say how its images have to look, so its "
            f"dataset must be at hand: {error}"
        ) from error
    return learner, ImageForm(data["name"], split.image_shape, split.normalization)


def _trained(
    run: Path | str, checkpoint: Literal["best", "last"], learner: Learner | None
) -> tuple[Learner, dict[str, Any]]:
    """The learner, built anew unless one is given, with the weights of a run, and the run's configuration."""
    folder = RunFolder(run)
    described = read_config(folder.path)
    path = folder.best if checkpoint == "best" else folder.last
    content = checkpoints.load(path, described if learner is None else describe_learner(learner))
    if learner is None:
        learner = build_learner(content["config"], download=False)
    checkpoints.load_weights(learner, content["learner"], path)
    return learner.eval(), content["config"]
