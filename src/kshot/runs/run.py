"""A run is one training: a folder, which this class alone reads and writes, or nothing but memory.

Such a folder holds config.yaml, environment.json, metrics.csv, timing.csv, checkpoints/{best,last}.pt and
evaluation/*.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kshot import data as datasets
from kshot.data.dataset import ImageForm, Normalization, SplitName
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError
from kshot.evaluation.results import Evaluation
from kshot.files import checksum, write_json
from kshot.learners.base import Learner
from kshot.measures import Statistics
from kshot.runs import checkpoints, lock, readers
from kshot.runs.config import build_learner, describe_learner, free_on_resume, read_config
from kshot.runs.environment import describe_environment
from kshot.runs.measurement import Measurement
from kshot.runs.result import TrainingResult
from kshot.solvers.adaptation import Adaptation


class Run:
    """One training and what was measured of it.

    `kshot.train` returns it; ``Run("runs/a")`` opens a folder that it wrote. Nothing is read before it is needed.

    Parameters
    ----------
    path
        The run folder; None for a training without one.
    root
        The folder of prepared datasets, see `kshot.load`.

    Attributes
    ----------
    path
        The run folder; None for a training without one, which lives in memory only.
    result
        What the training achieved, a `TrainingResult`; None for a run that another process trained.
    """

    def __init__(self, path: Path | str | None, *, root: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.root = root
        self.result: TrainingResult | None = None
        self._evaluations: list[Evaluation] = []  # of a run without a folder
        self._loaded: str | None = None  # what identifies the weights of `learner`

    @classmethod
    def of(cls, learner: Learner, data: AnyDataset, config: Mapping[str, Any]) -> Run:
        """A run without a folder, of a learner at hand."""
        run = cls(None)
        run.__dict__.update(learner=learner, data=data, config=dict(config))
        return run

    def __repr__(self) -> str:
        if self.path is not None and not self.path.is_dir():
            return f"Run({str(self.path)!r}): no such folder"
        try:
            config = self.config
        except CheckpointError as error:
            return f"Run({str(self.path)!r}): {error}"
        backbone = config["backbone"].get("name", config["backbone"].get("unregistered", "no backbone"))
        lines = [
            f"Run({str(self.path)!r})" if self.path is not None else "Run in memory, without a folder",
            f"  {config['learner']['name']} on {config['data']['name']}, {backbone}, seed {config['training']['seed']}",
        ]
        if self.result is not None:
            lines.append(f"  {self.result}")
        lines += [f"  {evaluation}" for evaluation in self.evaluations]
        return "\n".join(lines)

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

    # --- what it was made from, and what became of it

    @cached_property
    def config(self) -> dict[str, Any]:
        """The sections "data", "backbone", "learner" and "training" of config.yaml."""
        return read_config(self.folder)

    @cached_property
    def data(self) -> AnyDataset:
        """The dataset, or family of functions, that the run was trained on."""
        return datasets.load(self.config["data"]["name"], root=self.root)

    @cached_property
    def learner(self) -> Learner:
        """The trained learner with the best weights, in evaluation mode, on the CPU unless it was trained elsewhere."""
        learner, self._loaded = self._load("best")
        return learner

    def load(self, *, checkpoint: Literal["best", "last"] = "best", learner: Learner | None = None) -> Learner:
        """Build the learner and put the weights of a checkpoint into it.

        Parameters
        ----------
        checkpoint
            The weights of the best validation accuracy, or those at the end.
        learner
            A learner to put the weights into, for a run whose backbone is not registered; None to build it from
            config.yaml.

        Returns
        -------
        Learner
            In evaluation mode, on the CPU.

        Raises
        ------
        CheckpointError
            If the run or its checkpoint is missing, damaged, or of another learner.
        """
        return self._load(checkpoint, learner)[0]

    def _load(self, checkpoint: Literal["best", "last"], learner: Learner | None = None) -> tuple[Learner, str]:
        """The learner with the weights of a checkpoint, and what identifies these."""
        described = self.config if learner is None else describe_learner(learner)
        path = self.best if checkpoint == "best" else self.last
        content = checkpoints.load(path, described)
        if learner is None:
            learner = build_learner(content["config"], download=False)
        checkpoints.load_weights(learner, content["learner"], path)
        return learner.eval(), content["digest"]

    @property
    def image_form(self) -> ImageForm:
        """The images that the learner takes, which a run knows without its dataset; ConfigError for regression."""
        data = self.config["data"]
        if "normalization" not in data:
            raise ConfigError(f"{self.name} was trained on {data['name']}, whose tasks have no images")
        stored = data["normalization"]
        normalization = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["augment"])
        return ImageForm(data["name"], tuple(data["image_shape"]), normalization)

    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv, one value per epoch; DataError before the end of the first epoch."""
        return readers.read_columns(self.folder / "metrics.csv")

    def timing(self) -> dict[str, NDArray[np.float64]]:
        """The columns of timing.csv, one value per epoch; DataError before the end of the first epoch."""
        return readers.read_columns(self.folder / "timing.csv")

    # --- what was measured

    @property
    def weights(self) -> str:
        """What identifies the best weights; CheckpointError if there is no checkpoint."""
        try:
            return checksum(self.best)[:16]
        except FileNotFoundError:
            raise CheckpointError(
                f"there is no checkpoint {self.best}: train the run first, or check its name"
            ) from None

    @property
    def evaluations(self) -> list[Evaluation]:
        """What was measured of the best weights as they are now, in the order of file names."""
        if self.path is None:
            return list(self._evaluations)
        results = [Evaluation.load(path) for path in sorted((self.path / "evaluation").glob("*.json"))]
        weights = self.weights if results else None
        return [result for result in results if result.weights == weights]

    def _keep(self, result: Evaluation) -> Evaluation:
        """Save an evaluation of `learner`, stamped with the weights that were measured: the file may hold others."""
        if self.path is None:
            self._evaluations.append(result)
            return result
        result = replace(result, weights=self._loaded)
        result.save(self.path / "evaluation")
        return result

    def evaluate(
        self,
        *,
        shots: int | Sequence[int] = 5,
        data: AnyDataset | None = None,
        split: SplitName = "test",
        ways: int | None = None,
        queries: int = 15,
        tasks: int = 2000,
        seed: int = 0,
        within_domain: bool | None = None,
        adaptation: Adaptation | str | None = None,
        precision: Literal["float32", "bf16"] = "float32",
        statistics: Statistics | Sequence[Statistics] | None = None,
        reuse: bool = False,
        progress: bool = False,
    ) -> list[Evaluation]:
        """Measure the best weights on sampled tasks, and save the results in the run folder.

        Features are computed once and shared by all numbers of shots. Task i is the same for every run.

        Parameters
        ----------
        shots
            Support images per class, one number or several.
        data
            The dataset to measure on; None for the one that the run was trained on.
        split
            The classes that tasks are drawn from.
        statistics
            Kinds of BatchNorm statistics, for learners that adapt weights; None for all that the learner offers.
        reuse
            Keep results that were saved before with the same options.
        ways, queries, tasks, seed, within_domain, adaptation, precision, progress
            As for `kshot.evaluate`.

        Returns
        -------
        list of Evaluation
            One per kind of statistics and number of shots, in this order.

        Raises
        ------
        ConfigError, DataError
            Before any work, if the tasks cannot be drawn or the learner cannot learn them.
        """
        measurement = Measurement(
            shots=[shots] if isinstance(shots, int) else shots,
            split=split,
            ways=ways,
            queries=queries,
            tasks=tasks,
            seed=seed,
            within_domain=within_domain,
            adaptation=adaptation,
            precision=precision,
            statistics=[statistics] if isinstance(statistics, str) else statistics,
        )
        return self.measure(measurement, data, reuse=reuse, progress=progress)

    def measure(
        self, measurement: Measurement, data: AnyDataset | None = None, *, reuse: bool = False, progress: bool = False
    ) -> list[Evaluation]:
        """As `evaluate`, with the options in one object."""
        data = self.data if data is None else data
        measurement.check(self.learner, data)
        results: list[Evaluation] = []
        for kind in measurement.kinds(self.learner, data):
            known = measurement.among(self.evaluations if reuse else (), self.learner, data, statistics=kind)
            missing = [count for count in measurement.shots if count not in known]
            name = self.name if progress else None
            if missing:
                measured = measurement.of(self.learner, data, statistics=kind, shots=missing, progress=name)
                known |= {count: self._keep(result) for count, result in zip(missing, measured)}
            results += [known[count] for count in measurement.shots]
        return results

    # --- what training writes

    def locked(self, writes: bool = True) -> AbstractContextManager[None]:
        """Within this context no other process trains into the folder; ConfigError if one does.

        writes: False in all processes but one, which only read.
        """
        return lock.locked(self.path, doing="being trained") if self.path is not None and writes else nullcontext()

    def start(self, config: dict[str, Any], resume: bool, writes: bool = True) -> dict[str, Any] | None:
        """Write config.yaml and environment.json; returns the checkpoint to continue from, or None for a new run.

        Parameters
        ----------
        config
            The sections of config.yaml.
        resume
            Go on from the last checkpoint; a run that was killed before its first one starts again.
        writes
            False in all processes but one, which only read.

        Raises
        ------
        ConfigError
            If a trained run would be overwritten, or continued with other options.
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
            readers.write_config(self.folder, config)
            write_json(self.folder / "environment.json", describe_environment())
        except OSError as error:
            raise ConfigError(f"the run folder {self.path} cannot be written ({error}); choose another one") from error

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

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write metrics.csv, which a resumed run repeats to the byte, and timing.csv, which no run repeats."""
        readers.write_history(self.folder, history)

    def end(self, learner: Learner, data: AnyDataset, config: Mapping[str, Any], result: TrainingResult) -> None:
        """Take over what training ends with: the learner with the best weights, its data, and the result."""
        self.result = result
        self.__dict__.update(learner=learner, data=data, config=dict(config))
        self._loaded = self.weights if self.path is not None else None
