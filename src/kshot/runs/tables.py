"""The table of several runs."""

from __future__ import annotations

from collections.abc import Sequence

from kshot.errors import ConfigError
from kshot.report.content import distinctly_named
from kshot.report.sections import shared_rows
from kshot.report.tables import Table
from kshot.report.tables import table as table_of_rows
from kshot.runs.run import Run


def table(runs: Sequence[Run], *, paired: bool = False) -> Table:
    """One row per run and kind of statistics, one column per number of shots, from what was measured of the runs.

    The table holds the evaluations on tasks that all runs share: with the learners' own adaptations if possible, and
    with the most tasks.

    Parameters
    ----------
    runs
        Runs that were evaluated, see `Run.evaluate` and `Run.compare`.
    paired
        Add the paired difference of every row to the first one, on the same tasks.

    Returns
    -------
    Table
        ``print`` shows it as text, a notebook as HTML; it has ``.markdown()``, ``.csv()`` and ``.latex()``.

    Raises
    ------
    ConfigError
        If there are no runs, or something else than runs.
    DataError
        If the runs have no evaluation on the same tasks.
    """
    if isinstance(runs, Run) or not all(isinstance(run, Run) for run in runs):
        raise ConfigError("a table is of a list of runs: table([run, kshot.Run('runs/b')])")
    if not runs:
        raise ConfigError("there are no runs to make a table of; give at least one")
    return table_of_rows(shared_rows(distinctly_named([run.content() for run in runs])), paired=paired)
