"""`kshot report`: one self-contained HTML page about runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.runs.run import Run


def run(arguments: Sequence[str]) -> None:
    """Write one HTML page about runs with everything in it: results with intervals, curves, protocol,
    configuration.

    It shows what kshot evaluate and kshot compare have saved in the runs. Runs that were measured on the same
    tasks share a table with paired differences; others get one table for each kind of tasks.

    Examples
    --------
    kshot report runs/a runs/b --out report.html
    """
    options = Options.of("kshot report", run, positional="RUN [RUN ...]")
    options.add("runs", list[Path], text="run folders that were evaluated")
    options.add("--out", Path, default=Path("report.html"), text="the page")
    given = options.parse(arguments)
    first, *others = (Run(folder) for folder in given.runs)
    print(f"wrote {first.report(given.out, *others)}")
