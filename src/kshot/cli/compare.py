"""`kshot compare`: runs on the same tasks, and the paired difference of each to the first."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import Namespace

from kshot.cli.evaluate import evaluation_options, measured
from kshot.errors import ConfigError
from kshot.learners import learners
from kshot.report.tables import table
from kshot.runs.config import read_config
from kshot.runs.run import Run


def run(arguments: Sequence[str]) -> None:
    """Measure runs on the same tasks and print the paired difference of each to the first, with its
    95% interval.

    Pairing removes the spread of easy and hard tasks, so small differences become visible. Results that were
    saved before with the same options are used again.

    Examples
    --------
    kshot compare runs/mtl-glyphs-conv4-seed0 runs/protonet-glyphs-conv4-seed0
    kshot compare runs/a runs/b --shots 5 --tasks 10000 --style markdown
    """
    options = evaluation_options(arguments, "kshot compare", run)
    given = options.parse(arguments)
    if len(given.runs) == 1 and not _has_several_rows(given):  # said before the work of measuring it
        raise ConfigError("kshot compare needs two runs or more; for one run there is kshot evaluate")
    runs = [Run(folder, root=given.root, checkpoint=given.checkpoint) for folder in given.runs]
    rows = [row for several in measured(runs, given, reuse=True) for row in several]
    print(f"\n{table(rows, paired=True).render(given.style)}")


def _has_several_rows(given: Namespace) -> bool:
    """Whether the only run is measured under several kinds of statistics, which can be compared with each other."""
    learner = learners[read_config(given.runs[0])["learner"]["name"]]
    return len(given.statistics or learner.statistics_offered) > 1
