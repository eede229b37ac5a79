"""`kshot report`: one self-contained HTML page about runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import Options
from kshot.files import write_text
from kshot.report.page import page


def run(arguments: Sequence[str]) -> None:
    """Write the page."""
    options = Options(
        "kshot report",
        "Write one HTML page about runs, everything in it: results with intervals, curves, protocol, configuration.\n\n"
        "It shows what kshot evaluate and kshot compare have saved in the runs.",
        ["kshot report runs/a runs/b --out report.html"],
        positional="RUN [RUN ...]",
    )
    options.add("runs", list[Path], None, "run folders, evaluated ones")
    options.add("--out", Path, Path("report.html"), "the page")
    given = options.parse(arguments)
    write_text(given.out, page(given.runs))
    print(f"wrote {given.out}")
