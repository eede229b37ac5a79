"""What the report renders of a run: plain content, from wherever it was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.evaluation.results import Evaluation
from kshot.report.names import display_names

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class RunContent:
    """What one run has to show.

    Attributes
    ----------
    name
        What tables and pictures call the run, its folder for instance.
    path_text
        The run as commands take it; errors and advice name it so.
    config
        The sections data, backbone, learner and training that the run was made from, each a mapping.
    evaluations
        Everything that was measured of the run's present weights.
    metrics
        The columns of metrics.csv, one value per epoch; None before the end of the first epoch.
    timing
        The columns of timing.csv, one value per epoch; None before the end of the first epoch, and for a run whose
        training is only in part timed there, as that of TSA-MAML's groups.
    """

    name: str
    path_text: str
    config: Mapping[str, Any]
    evaluations: Sequence[Evaluation] = ()
    metrics: Columns | None = None
    timing: Columns | None = None

    def __repr__(self) -> str:
        epochs = 0 if self.metrics is None else len(self.metrics["epoch"])
        return f"RunContent({self.path_text!r}: {epochs} epochs, {len(self.evaluations)} evaluations)"


def distinctly_named(contents: Sequence[RunContent]) -> list[RunContent]:
    """The same content under printable names; runs of the same name are called by their paths."""
    names = [content.name for content in contents]
    names = [content.path_text if names.count(content.name) > 1 else content.name for content in contents]
    return [replace(content, name=name) for content, name in zip(contents, display_names(names))]
