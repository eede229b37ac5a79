"""A run is one training: a folder, which this class alone reads and writes, or nothing but memory.

Such a folder holds config.yaml, environment.json, metrics.csv, timing.csv, checkpoints/{best,last}.pt and
evaluation/*.json.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from typing_extensions import Unpack

from kshot import data as datasets
from kshot.data.dataset import ImageForm
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError, check_choice
from kshot.evaluation.listing import Evaluations
from kshot.evaluation.results import Evaluation
from kshot.learners.base import Learner
from kshot.report.content import RunContent
from kshot.report.published import row_of
from kshot.report.tables import Row, Table, table
from kshot.runs import checkpoints
from kshot.runs.config import build_learner, describe_learner, image_form, read_config
from kshot.runs.content import check_weights
from kshot.runs.folder import RunFolder
from kshot.runs.measurement import EvaluationKeywords, Measurement
from kshot.runs.pages import write_page
from kshot.runs.result import TrainingResult

Checkpoint = Literal["best", "last"]


class Run(RunFolder):
    """One training and what was measured of it.

    `kshot.train` returns it; ``Run("runs/a")`` opens a folder that it wrote. Nothing is read before it is needed.

    Parameters
    ----------
    path
        The run folder; None for a training without one.
    root
        The folder of prepared datasets, see `kshot.load`.
    checkpoint
        Which weights are measured: those of the best validation accuracy, or those at the end of training.

    Attributes
    ----------
    path
        The run folder; None for a training without one, which lives in memory only.
    result
        What the training achieved, a `TrainingResult`; None for a run that another process trained.
    """

    def __init__(
        self, path: Path | str | None, *, root: Path | str | None = None, checkpoint: Checkpoint = "best"
    ) -> None:
        super().__init__(path)
        check_choice("checkpoint", checkpoint, get_args(Checkpoint))
        self.root, self.checkpoint = root, checkpoint
        self.result: TrainingResult | None = None
        self._evaluations: list[Evaluation] = []  # of a run without a folder, or whose folder cannot be written
        self._loaded: str | None = None  # what identifies the weights of `learner`

    @classmethod
    def of(cls, learner: Learner, data: AnyDataset, config: Mapping[str, Any]) -> Run:
        """A run without a folder, of a learner at hand.

        Parameters
        ----------
        learner, data, config
            The learner, what it was made for, and the options by section, as config.yaml holds them.
        """
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

    @cached_property
    def data(self) -> AnyDataset:
        """The dataset, or family of functions, that the run was trained on."""
        return datasets.load(self.config["data"]["name"], root=self.root)

    @property
    def image_form(self) -> ImageForm:
        """The images that the learner takes, known without the dataset; ConfigError for regression, which has none."""
        return image_form(self.config["data"], root=self.root, run=self.name)

    @cached_property
    def learner(self) -> Learner:
        """The trained learner with the weights of `checkpoint`, in evaluation mode, on the CPU unless trained here."""
        learner, self._loaded = self._load(self.checkpoint)
        return learner

    def load(self, *, checkpoint: Checkpoint | None = None, learner: Learner | None = None) -> Learner:
        """Build the learner and put the weights of a checkpoint into it.

        Parameters
        ----------
        checkpoint
            As for `Run`; None for the one that the run was opened with.
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
        return self._load(checkpoint or self.checkpoint, learner)[0]

    def _load(self, checkpoint: Checkpoint, learner: Learner | None = None) -> tuple[Learner, str]:
        """The learner with the weights of a checkpoint, and what identifies these."""
        described = self.config if learner is None else describe_learner(learner)
        path = self._path_of(checkpoint)
        content = checkpoints.load(path, described)
        check_weights(content, path)
        if learner is None:
            self.refuse_mixed(content["config"], path)
            learner = build_learner(content["config"], download=False)
        checkpoints.load_weights(learner, content["learner"], path)
        return learner.eval(), content["digest"]

    @property
    def evaluations(self) -> list[Evaluation]:
        """What was measured of the weights as they are now, in the order of file names."""
        if self.path is None:
            return Evaluations(self._evaluations)
        results = [Evaluation.load(path) for path in sorted(self._measured.glob("*.json"))]
        weights = self.weights if results else None
        present = Evaluations(result for result in results if result.weights == weights)
        if results and not present:  # either other weights, or damaged ones
            checkpoints.load(self._path_of(self.checkpoint))
        return Evaluations([*present, *self._evaluations])

    @property
    def weights(self) -> str:
        """What identifies the weights; CheckpointError if there is no checkpoint."""
        return self.weights_of(self._path_of(self.checkpoint))

    @property
    def _measured(self) -> Path:
        """The folder of what was measured of the weights."""
        folder = self.folder / "evaluation"
        return folder if self.checkpoint == "best" else folder / self.checkpoint

    def _path_of(self, checkpoint: Checkpoint) -> Path:
        return self.best if checkpoint == "best" else self.last

    def _keep(self, result: Evaluation) -> Evaluation:
        """Save an evaluation of `learner`, stamped with the weights that were measured: the file may hold others.

        What cannot be saved is kept here, with a warning: a run of somebody else can be measured, too.
        """
        if self.path is not None:
            result = replace(result, weights=self._loaded)
            try:
                read_config(self.path)  # a folder that was removed meanwhile is not made again
                result.save(self._measured)
                return result
            except (ConfigError, CheckpointError) as error:
                warnings.warn(f"nothing of this was saved: {error}", stacklevel=4)
        self._evaluations.append(result)
        return result

    def evaluate(
        self, *, reuse: bool = False, progress: bool = False, **options: Unpack[EvaluationKeywords]
    ) -> list[Evaluation]:
        """Measure the best weights on sampled tasks, and save the results in the run folder.

        Features are computed once and shared by all numbers of shots. Task i is the same for every run.

        Parameters
        ----------
        reuse
            Keep results that were saved before with the same options.
        progress
            Show bars on the terminal.
        **options
            What to measure: the fields of `Measurement`, such as ``shots=[1, 5]`` (default 5), ``tasks=2000`` or
            ``adaptation="ridge"``; and ``data``, another dataset than the one that the run was trained on.

        Returns
        -------
        list of Evaluation
            One per kind of statistics and number of shots, in this order.

        Raises
        ------
        ConfigError, DataError
            Before any work, if the tasks cannot be drawn or the learner cannot learn them.
        """
        measurement, data = Measurement.of(options)
        return self.measure(measurement, data, reuse=reuse, progress=progress)

    def measure(
        self, measurement: Measurement, data: AnyDataset | None = None, *, reuse: bool = False, progress: bool = False
    ) -> list[Evaluation]:
        """As `evaluate`, with the options in one object.

        Parameters
        ----------
        measurement
            What to measure.
        data, reuse, progress
            As for `evaluate`.
        """
        data = self.data if data is None else data
        measurement.check(self.learner, data)
        results = Evaluations()
        for kind in measurement.kinds(self.learner, data):
            known = measurement.among(self.learner, data, saved=self.evaluations if reuse else (), statistics=kind)
            missing = [count for count in measurement.shots if count not in known]
            name = self.name if progress else None
            if missing:
                told = measurement.told_the_mean(self.learner, self.data)
                measured = told.evaluations_of(self.learner, data, statistics=kind, shots=missing, progress=name)
                known |= {count: self._keep(result) for count, result in zip(missing, measured)}
            results += [known[count] for count in measurement.shots]
        return results

    def end(self, learner: Learner, data: AnyDataset, *, config: Mapping[str, Any], result: TrainingResult) -> None:
        """Take over what training ends with.

        Parameters
        ----------
        learner, data, config, result
            As for `of`, and what the training achieved.
        """
        self.result = result
        self.__dict__.update(learner=learner, data=data, config=dict(config))
        self._loaded = self.weights if self.path is not None else None

    def rows(self, results: Sequence[Evaluation]) -> list[Row]:
        """The rows of a table that shows `results`, evaluations of this run: one row per kind of statistics."""
        kinds = dict.fromkeys(result.protocol.statistics for result in results)
        name = self.name if self.checkpoint == "best" else f"{self.name}, {self.checkpoint} checkpoint"
        return [
            row_of(
                name if kind == "running" else f"{name}, {kind}",
                self.config,
                [result for result in results if result.protocol.statistics == kind],
            )
            for kind in kinds
        ]

    def compare(self, *others: Run, progress: bool = False, **options: Unpack[EvaluationKeywords]) -> Table:
        """Measure this run and others on the same tasks, as far as that was not done before.

        Parameters
        ----------
        *others
            Runs to compare with this one.
        progress, **options
            As for `evaluate`; so tasks are 5-shot, unless ``shots`` is given.

        Returns
        -------
        Table
            One row per run, each with its paired difference to this one.

        Raises
        ------
        ConfigError, DataError
            Before any work, if a run cannot be measured on these tasks.
        """
        if not others:
            raise ConfigError("a comparison needs two runs or more; for one run there is Run.evaluate")
        measurement, data = Measurement.of(options)
        runs = [self, *others]
        for run in runs:
            measurement.check(run.learner, data or run.data)
        measured = [run.measure(measurement, data, reuse=True, progress=progress) for run in runs]
        return table([row for run, results in zip(runs, measured) for row in run.rows(results)], paired=True)

    def report(self, out: Path | str, *others: Run) -> Path:
        """Write one self-contained HTML page about this run and `others` to `out`; DataError if none was evaluated."""
        return write_page([run.content() for run in (self, *others)], Path(out))

    def content(self) -> RunContent:
        """What tables and pages show of the run."""
        if self.path is None:
            return RunContent(self.name, "a run in memory", self.config, self.evaluations)
        staged = (self.path / "stages.yaml").exists()  # whose epochs come after stages that are timed elsewhere
        return RunContent(
            name=self.name,
            path_text=str(self.path),
            config=self.config,
            evaluations=self.evaluations,
            metrics=self.metrics() if (self.path / "metrics.csv").exists() else None,
            timing=self.timing() if (self.path / "timing.csv").exists() and not staged else None,
        )
