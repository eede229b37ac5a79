"""`kshot report`: one self-contained HTML page about runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.files import write_text
from kshot.report.content import RunContent
from kshot.report.page import page
from kshot.runs.config import read_config
from kshot.runs.readers import groups_by_seed, read_evaluations, read_metrics, read_timing


def run(arguments: Sequence[str]) -> None:
    """Write the page."""
    options = Options(
        "kshot report",
        "Write one HTML page about runs with everything in it: results with intervals, curves, protocol,\n"
        "configuration.\n\n"
        "It shows what kshot evaluate and kshot compare have saved in the runs. Runs that were measured on the same\n"
        "tasks share a table with paired differences; others get one table for each kind of tasks.",
        ["kshot report runs/a runs/b --out report.html"],
        positional="RUN [RUN ...]",
    )
    options.add("runs", list[Path], None, "run folders that were evaluated")
    options.add("--out", Path, Path("report.html"), "the page")
    given = options.parse(arguments)
    write_text(given.out, page_of(given.runs))
    print(f"wrote {given.out}")


def page_of(runs: Sequence[Path]) -> str:
    """The page about these run folders, as HTML."""
    return page([content_of(run) for run in runs], seed_groups=groups_by_seed(runs))


def content_of(run: Path) -> RunContent:
    """What the report shows of a run folder; CheckpointError for a folder that is no run."""
    staged = (run / "stages.yaml").exists()  # whose epochs come after hidden work
    return RunContent(
        name=Path(os.path.abspath(run)).name,
        path_text=str(run),
        config=read_config(run),
        evaluations=read_evaluations(run),
        metrics=read_metrics(run) if (run / "metrics.csv").exists() else None,
        timing=read_timing(run) if (run / "timing.csv").exists() and not staged else None,
    )
