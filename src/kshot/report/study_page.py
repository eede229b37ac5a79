"""The page of a study, and its table as Markdown, CSV and LaTeX."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tabulate import tabulate

from kshot.files import csv_text, without_nan
from kshot.report.curves import progress_picture
from kshot.report.names import printable
from kshot.report.study_numbers import Column, Number, Pair, columns_of, pairs_of, text_of, verdict_of
from kshot.report.templates import template


class Curve(NamedTuple):
    """Validation accuracy, in percent, against images seen, for one row: the mean over trainings."""

    name: str
    images: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StudyContent:
    """What the page of a study shows.

    Attributes
    ----------
    title, description
        Of the study.
    remarks
        What a reader must know before the numbers: that the study is unfinished, what failed.
    rows
        For each dataset the rows of its table: name to numbers by column.
    reference
        The row that the others are compared with, for each dataset.
    costs
        For each dataset a table of what the rows cost: title to cells.
    curves
        For each dataset the curves.
    cells
        The table of all cells: title to one value per cell.
    notes
        What stands below the tables: protocol, hardware, versions.
    configurations
        Name and YAML of each cell.
    """

    title: str
    description: str
    remarks: Sequence[str]
    rows: Mapping[str, Mapping[str, Mapping[Column, Number]]]
    reference: Mapping[str, str]
    costs: Mapping[str, Mapping[str, Sequence[str]]]
    curves: Mapping[str, Sequence[Curve]]
    cells: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    configurations: Sequence[tuple[str, str]] = field(default_factory=list)


class _ShownCell(NamedTuple):
    """One cell of the table of a page: the number, and what stands below it."""

    number: str
    below: Sequence[str]


def page(content: StudyContent) -> str:
    """The page as HTML, with everything in it."""
    sections = []
    for dataset, rows in content.rows.items():
        pairs = {column: pairs_of(column, _of(rows, column)) for column in columns_of(rows)}
        sections.append(
            {
                "dataset": dataset,
                "reference": content.reference[dataset] if any(pairs.values()) else "",
                "columns": [column.title for column in pairs],
                "rows": [
                    (name, _shown(name, numbers, pairs, content.reference[dataset])) for name, numbers in rows.items()
                ],
                "costs": content.costs[dataset],
                "pairs": _pairs_table([pair for several in pairs.values() for pair in several]),
                "curve": _png(progress_picture(content.curves[dataset])) if content.curves[dataset] else "",
            }
        )
    return template("study.html").render(
        content=content, sections=sections, rows_of=lambda columns: zip(*columns.values())
    )


def _of(rows: Mapping[str, Mapping[Column, Number]], column: Column) -> dict[str, Number]:
    """What the rows have in a column."""
    return {name: numbers[column] for name, numbers in rows.items() if column in numbers}


def _shown(
    name: str, numbers: Mapping[Column, Number], pairs: Mapping[Column, Sequence[Pair]], reference: str
) -> list[_ShownCell]:
    cells = []
    for column, tested in pairs.items():
        number = numbers.get(column)
        if number is None:
            cells.append(_ShownCell("", []))
            continue
        below = []
        if number.published is not None:
            below.append(f"published {number.published}")
        if verdict := verdict_of(number):
            below.append(verdict)
        for pair in tested:
            if {pair.first, pair.second} == {name, reference} and name != reference:
                sign = 1 if pair.first == name else -1
                text = number.measure.text(sign * pair.difference, pair.ci95, signed=True)
                below.append(f"paired {text}{' *' if pair.significant else ''}")
        cells.append(_ShownCell(text_of(number) or "not measured", below))
    return cells


def _pairs_table(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """The comparisons as text."""
    return {
        "tasks": [pair.column.title for pair in pairs],
        "first": [pair.first for pair in pairs],
        "second": [pair.second for pair in pairs],
        "first minus second": [pair.text for pair in pairs],
        "p": [f"{pair.p:.2g}" for pair in pairs],
        "p, Holm": [f"{pair.corrected:.2g}{' *' if pair.significant else ''}" for pair in pairs],
    }


def table(content: StudyContent, dataset: str) -> dict[str, list[str]]:
    """The table of a dataset as plain text: title to one cell per row."""
    rows = content.rows[dataset]
    columns: dict[str, list[str]] = {"": list(rows)}
    for column in columns_of(rows):
        of_rows = [numbers.get(column) for numbers in rows.values()]
        columns[column.title] = ["" if number is None else text_of(number) for number in of_rows]
        if any(number is not None and number.published for number in of_rows):
            columns[f"{column.title}, published"] = [
                str(number.published) if number is not None and number.published else "" for number in of_rows
            ]
    return columns


def markdown(content: StudyContent) -> str:
    """All tables in GitHub's Markdown."""
    parts = [f"# {content.title}", *content.remarks]
    for dataset in content.rows:
        parts += [f"## {dataset}", _tabulated(table(content, dataset), "github")]
        parts.append(_tabulated(content.costs[dataset], "github"))
    return "\n\n".join([*parts, *content.notes]) + "\n"


def latex(content: StudyContent) -> str:
    """All tables for LaTeX with booktabs."""
    parts = [f"% {line}" for line in [content.title, *content.remarks]]
    for dataset in content.rows:
        body = _tabulated(table(content, dataset), "latex_booktabs")
        parts += [f"% {dataset}", body.replace("±", r"\(\pm\)")]
    return "\n".join([*parts, *(f"% {line}" for line in content.notes)]) + "\n"


def _tabulated(columns: Mapping[str, Sequence[str]], layout: str) -> str:
    cells = {title: [printable(cell) for cell in column] for title, column in columns.items()}
    if layout == "github":
        cells = {_in_markdown(title): [*map(_in_markdown, column)] for title, column in cells.items()}
    alignment = ["left", *["right"] * (len(cells) - 1)]
    return tabulate(cells, headers="keys", tablefmt=layout, colalign=alignment, disable_numparse=True)


def _in_markdown(cell: str) -> str:
    return cell.replace("|", r"\|")


def numbers_csv(content: StudyContent) -> str:
    """One line per number; what is not known, such as the interval over seeds of one, is left empty."""
    lines: list[dict[str, Any]] = []
    for dataset, rows in content.rows.items():
        for name, numbers in rows.items():
            for column, number in numbers.items():
                line: dict[str, Any] = {"dataset": dataset, "row": name, "ways": column.ways, "shots": column.shots}
                line |= {"domain": column.domain, "seeds": " ".join(map(str, number.values)), "tasks": None}
                line |= dict.fromkeys(("mean", "ci95_tasks", "ci95_seeds", "difference", "intervals_meet"))
                line["published"] = number.published.accuracy if number.published else None
                line["published_ci95"] = number.published.ci95 if number.published else None
                if number.values:
                    line |= {"tasks": len(number.per_task), "mean": number.over_tasks.mean}
                    line |= {"ci95_tasks": number.over_tasks.ci95, "ci95_seeds": number.over_seeds.ci95}
                    line |= {"difference": number.difference, "intervals_meet": number.meets}
                lines.append(without_nan(line))
    return csv_text(lines)


def pairs_csv(content: StudyContent) -> str:
    """One line per pair of rows and kind of tasks."""
    lines: list[dict[str, Any]] = []
    for dataset, rows in content.rows.items():
        for column in columns_of(rows):
            for pair in pairs_of(column, _of(rows, column)):
                line: dict[str, Any] = {"dataset": dataset, "tasks": column.title, "first": pair.first}
                line |= {"second": pair.second, "difference": pair.difference, "ci95": pair.ci95}
                lines.append(line | {"p": pair.p, "p_holm": pair.corrected})
    return csv_text(lines, ["dataset", "tasks", "first", "second", "difference", "ci95", "p", "p_holm"])


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return base64.b64encode(file.getvalue()).decode()
