"""Tables of evaluations: every accuracy with its interval, paired differences, published values, and the protocol."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from tabulate import tabulate

from kshot.errors import ConfigError
from kshot.evaluation.results import Difference, compare, over_seeds
from kshot.files import csv_text
from kshot.measures import ACCURACY, Measure
from kshot.report.names import display_names, printable, shortened
from kshot.report.notes import notes
from kshot.report.rows import Row

Style = Literal["text", "markdown", "csv", "latex"]


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """A table that was made by `table`: ``print`` shows it as text, a notebook as HTML.

    Attributes
    ----------
    columns
        The cells by the titles of their columns, one cell per row; the first column has the names of the rows.
    notes
        The lines below the table: what the numbers are and what they were measured on.
    records
        One mapping per number, with everything about it under its own name; accuracies are fractions.
    """

    columns: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    records: Sequence[Mapping[str, object]]

    def __str__(self) -> str:
        return "\n".join([self._body("simple"), "", *self.notes])

    __repr__ = __str__

    def markdown(self) -> str:
        """A table in GitHub's Markdown, with the notes below it."""
        return "\n".join([self._body("github"), "", *map(_in_markdown, self.notes)])

    def csv(self) -> str:
        """One line per number, with everything about it; accuracies are fractions."""
        rows = [{name: _in_spreadsheet(value) for name, value in row.items()} for row in self.records]
        return csv_text(rows).rstrip("\n")

    def latex(self) -> str:
        """A ``tabular`` for LaTeX with booktabs, and the notes as comments below it."""
        body = self._body("latex_booktabs").replace("±", r"\(\pm\)").replace("…", r"\ldots{}")
        return "\n".join([body, *(f"% {line}" for line in self.notes)])

    def render(self, style: Style = "text") -> str:
        """The table in one of the styles by name; ConfigError for an unknown one."""
        if style not in get_args(Style):
            raise ConfigError(f"there is no table style {style!r}; choose one of: {', '.join(get_args(Style))}")
        return str(self) if style == "text" else getattr(self, style)()

    def _repr_html_(self) -> str:
        return f"{self._body('html')}\n<p>{'<br>'.join(map(html.escape, self.notes))}</p>"

    def _body(self, layout: str) -> str:
        cells = {title: list(column) for title, column in self.columns.items()}
        if layout == "github":
            cells = {_in_markdown(title): [*map(_in_markdown, column)] for title, column in cells.items()}
        alignment = ["left", *["right"] * (len(cells) - 1)]
        return tabulate(cells, headers="keys", tablefmt=layout, colalign=alignment, disable_numparse=True)


def percent(mean: float, ci95: float, *, signed: bool = False) -> str:
    """An accuracy or a difference, given in 0..1, as percentage points with its half-width: ``76.90 ± 0.50``."""
    return ACCURACY.text(mean, ci95, signed=signed)


def table(rows: Sequence[Row], *, paired: bool = False) -> Table:
    """A table with one row per learner, one column per number of shots, and below it what the numbers were measured on.

    Parameters
    ----------
    rows
        What to show, in this order.
    paired
        Add the paired difference of every row to the first one, on the same tasks.

    Raises
    ------
    ConfigError
        If there are no rows, paired rows were not measured on the same tasks, rows differ in their numbers of shots, or
        some hold accuracies and others errors of regression.
    """
    _check(rows)
    shown = [replace(row, name=name) for row, name in zip(rows, display_names([row.name for row in rows]))]
    differences = [_differences(row, rows[0]) for row in rows] if paired else None
    return Table(_columns(shown, differences), [*map(printable, notes(shown))], _records(rows, differences))


def seeds_line(rows: Sequence[Row]) -> str:
    """The mean and the interval over several trainings of one learner that differ only in their seed."""
    parts = []
    for results in zip(*(row.results for row in rows)):
        parts.append(f"{results[0].protocol.shots}-shot {results[0].measure.text(*over_seeds(results))}")
    names = ", ".join(display_names([row.name for row in rows]))
    return f"Over {len(rows)} training seeds ({names}): {', '.join(parts)} (95% interval over trainings)."


def _check(rows: Sequence[Row]) -> None:
    if not rows or not all(row.results for row in rows):
        raise ConfigError("a table needs at least one row, and every row at least one evaluation; evaluate a run first")
    if len({tuple(result.protocol.shots for result in row.results) for row in rows}) > 1:
        raise ConfigError("the rows of a table were measured at different numbers of shots; give each the same ones")
    if len({result.measure.name for row in rows for result in row.results}) > 1:
        raise ConfigError("the rows of a table hold accuracies and errors of regression; make a table of each kind")


def _differences(row: Row, first: Row) -> list[Difference]:
    """The paired differences of a row to the first one, one per number of shots."""
    try:
        return [compare(result, reference) for result, reference in zip(row.results, first.results)]
    except ConfigError as error:
        names = " and ".join(printable(name) for name in (first.name, row.name))
        raise ConfigError(f"the rows {names} cannot be paired: {error}, or show them without differences") from error


def _columns(rows: Sequence[Row], differences: Sequence[Sequence[Difference]] | None) -> dict[str, list[str]]:
    """The cells of the table by the titles of its columns."""
    measure: Measure = rows[0].results[0].measure
    columns = {"": [row.name for row in rows]}
    for position, reference in enumerate(rows[0].results):
        shots = f"{reference.protocol.shots}-shot"
        results = [row.results[position] for row in rows]
        columns[shots] = [measure.text(result.mean, result.ci95) for result in results]
        if differences is not None:
            others = [of_row[position] for of_row in differences[1:]]
            title = f"{shots}, minus {shortened(rows[0].name, 40)}"
            columns[title] = ["", *(measure.text(other.mean, other.ci95, signed=True) for other in others)]
        published = [row.published[position] if row.published else None for row in rows]
        if any(published):
            columns[f"{shots}, published"] = [str(value) if value else "" for value in published]
    together = [row.results[0].sees_queries for row in rows]
    if any(together) and not all(together):
        columns["query images"] = ["all together" if seen else "one at a time" for seen in together]
    if any(row.seconds is not None for row in rows):
        columns["training"] = ["" if row.seconds is None else f"{row.seconds:.0f} s" for row in rows]
    return columns


def _records(rows: Sequence[Row], differences: Sequence[Sequence[Difference]] | None) -> list[dict[str, object]]:
    """One record per evaluation, everything in it as plain numbers and words."""
    return [
        _record(row, position, differences[number][position] if differences is not None else None)
        for number, row in enumerate(rows)
        for position in range(len(row.results))
    ]


def _record(row: Row, position: int, difference: Difference | None) -> dict[str, object]:
    result = row.results[position]
    at = result.protocol
    record: dict[str, object] = {"name": row.name, "learner": result.learner, "adaptation": result.adaptation}
    record["precision"] = result.precision
    record |= {"dataset": at.dataset, "split": at.split, "ways": at.ways, "shots": at.shots, "queries": at.queries}
    record |= {"within_domain": "" if at.within_domain is None else str(at.within_domain).lower()}
    record |= {"tasks": at.tasks, "tasks_per_domain": at.tasks_per_domain or ""}
    record |= {"seed": at.seed, "statistics": at.statistics}
    record |= {result.measure.name: f"{result.mean:.6f}", "ci95": f"{result.ci95:.6f}"}
    if difference is not None:
        record |= {"difference": f"{difference.mean:.6f}", "difference_ci95": f"{difference.ci95:.6f}"}
    value = row.published[position] if row.published else None
    record |= {"published": value.accuracy / 100 if value else "", "training_seconds": row.seconds or ""}
    record |= {"query_balance": at.query_balance, "sees_queries": str(result.sees_queries).lower()}
    return record


def _in_spreadsheet(value: object) -> object:
    """The value of a CSV cell; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
    return text


def _in_markdown(cell: str) -> str:
    """The text in Markdown, in which nothing begins markup or another cell."""
    return re.sub(r"[\\|`*<\[\]]", r"\\\g<0>", cell)
