"""The options of the stages that come before TSA-MAML's groups are trained, and the files that they leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from kshot.errors import CheckpointError, ConfigError
from kshot.files import write_text
from kshot.runs.run import Run
from kshot.tsa.clustering import Clustering


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
        """What `stages.yaml` holds; CheckpointError if it cannot be read."""
        try:
            return yaml.safe_load(self.options.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{self.path} is no folder of a TSA-MAML training: {self.options.name} cannot be read ({error}); "
                f"check the path"
            ) from error

    def take_into_use(self, config: Mapping[str, Any], resume: bool) -> None:
        """Write the options; ConfigError if another run would be overwritten, or continued with other options."""
        if self.groups.last.exists() and not self.options.exists():
            raise ConfigError(f"{self.path} holds a trained run of another kind; choose another folder")
        if not self.started:  # options that were refused before any work may be replaced by better ones
            write_text(self.options, yaml.safe_dump(dict(config), sort_keys=False))
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
