"""`kshot report`: one self-contained HTML page about runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.runs.run import Run


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
    options.add("runs", list[Path], text="run folders that were evaluated")
    options.add("--out", Path, default=Path("report.html"), text="the page")
    given = options.parse(arguments)
    first, *others = (Run(folder) for folder in given.runs)
    print(f"wrote {first.report(given.out, *others)}")
