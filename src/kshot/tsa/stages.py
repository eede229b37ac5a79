"""The options of the stages that come before TSA-MAML's groups are trained, and the files that they leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from kshot.errors import CheckpointError, ConfigError
from kshot.runs import checked_yaml, checkpoints
from kshot.runs.run import Run
from kshot.tsa.clustering import Clustering

_SECTIONS = ("data", "backbone", "learner", "stages", "training")


@dataclass(frozen=True)
class Stages:
    """What comes before the groups are trained (Z21 section 4.2).

    Parameters
    ----------
    pretrained
        Run folder of a trained MAML whose initialisation is theta*; None to train one first, with the options of the
        groups' training.
    pretraining_epochs
        Epochs of that training; None for as many as the groups' training has.
    solutions
        Training tasks whose estimated optima are clustered (Z21: 10,000).
    clustering
        "kmeans" takes 8 bytes of memory for each weight of each solution; "minibatch" takes little memory for any
        number of solutions, and finds rougher groups.
    """

    pretrained: Path | None = None
    pretraining_epochs: int | None = None
    solutions: int = 10_000
    clustering: Clustering = "kmeans"

    def plain(self) -> dict[str, Any]:
        """The options in a form that YAML can hold."""
        return asdict(self) | {"pretrained": str(self.pretrained) if self.pretrained is not None else None}


class StageFolder:
    """The files of the stages in a run folder.

    ``stages.yaml`` holds all options; ``pretraining/`` is the run of the MAML; ``solutions/`` holds the task solutions
    and, once they are clustered, ``clusters.pt``; the rest is the run of the groups' training, like that of any
    training.

    Parameters
    ----------
    path
        The run folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.options = self.path / "stages.yaml"
        self.pretraining = Run(self.path / "pretraining")
        self.solutions = self.path / "solutions"
        self.clusters = self.solutions / "clusters.pt"
        self.groups = Run(self.path)

    @property
    def reached(self) -> str:
        """The current stage, in words."""
        if self.groups.last.exists():
            return "the training of the groups"
        if self.clusters.exists():
            return "the start of the groups' training"
        return "the task solutions" if self.solving else "the pretraining"

    @property
    def solving(self) -> bool:
        """Whether some tasks are solved already, so that theta* is final."""
        return (self.solutions / "progress.json").exists()

    @property
    def started(self) -> bool:
        """Whether any stage has written what another run would destroy."""
        return any(run.last.exists() for run in (self.pretraining, self.groups)) or self.solving

    @property
    def advice(self) -> str:
        """What to type to go on."""
        return f"continue with resume=True (kshot tsa train --resume {self.path})"

    def read_options(self) -> dict[str, Any]:
        """The sections of `stages.yaml`; CheckpointError if it is missing, damaged, or not what a training writes."""
        content = checked_yaml.read(self.options, _SECTIONS, kind="folder of a TSA-MAML training")
        checked_yaml.refuse(self.options, _faults(content["stages"]))
        return content

    def read_clusters(self, config: dict[str, Any]) -> dict[str, Any]:
        """What `clusters.pt` holds for the learner of `config`; CheckpointError if it is damaged or of another one."""
        content = checkpoints.load(self.clusters, config)
        kinds = {"learner": dict, "centroids": Tensor, "sizes": Tensor, "axes": Tensor}
        if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
            raise CheckpointError(f"{self.clusters} holds no clusters; delete the file and resume the run")
        return content

    def take_into_use(self, config: Mapping[str, Any], resume: bool) -> None:
        """Write the options; ConfigError if another run would be overwritten, or continued with other options.

        Parameters
        ----------
        config
            All options of the stages by section, for stages.yaml.
        resume
            Go on with the stages that are there.
        """
        if self.groups.last.exists() and not self.options.exists():
            raise ConfigError(f"{self.path} holds a trained run of another kind; choose another folder")
        if not self.started:  # options that were refused before any work may be replaced by better ones
            checked_yaml.write(self.options, config)
            return
        if not resume:
            raise ConfigError(
                f"{self.path} holds a TSA-MAML training that has reached {self.reached}; {self.advice}, or choose "
                f"another folder"
            )
        saved = self.read_options()
        differing = [
            f"{section}.{name} was {saved[section].get(name)!r} and is {config[section].get(name)!r}"
            for section in ("data", "backbone", "learner", "stages")
            for name in sorted(saved[section].keys() | config[section].keys())
            if saved[section].get(name) != config[section].get(name)
        ]
        if differing:
            raise ConfigError(
                f"{self.path} cannot be resumed with other options: {'; '.join(differing)}; choose another folder"
            )


def _faults(stages: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the section "stages" of stages.yaml."""
    names = [field.name for field in fields(Stages)]
    if sorted(stages) != sorted(names):
        yield f"the options in stages are not {', '.join(names)}"
        return
    if not isinstance(stages["pretrained"], (str, type(None))):
        yield f"stages.pretrained is {stages['pretrained']!r:.60}"
    for name, kinds in (("pretraining_epochs", (int, type(None))), ("solutions", (int,))):
        if type(stages[name]) not in kinds or (stages[name] is not None and stages[name] < 1):
            yield f"stages.{name} is {stages[name]!r:.60}"
    if stages["clustering"] not in get_args(Clustering):
        yield f"stages.clustering is {stages['clustering']!r:.60}"
