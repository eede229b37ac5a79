"""The table of several runs."""

from __future__ import annotations

from collections.abc import Sequence

from kshot.report.tables import Style
from kshot.report.tables import table as table_of_rows
from kshot.runs.run import Run


def table(runs: Sequence[Run], *, paired: bool = False, style: Style = "text") -> str:
    """One row per run."""
    raise NotImplementedError(runs, paired, style, table_of_rows)
