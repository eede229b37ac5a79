"""Tables of evaluations: every accuracy with its interval, paired differences, published values, and the protocol."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tabulate import tabulate

from kshot.errors import ConfigError
from kshot.evaluation.results import Evaluation, compare, over_seeds
from kshot.measures import ACCURACY, Measure
from kshot.recipes import Published

_DOMAINS_SHOWN = 10

Style = Literal["text", "markdown", "csv"]


@dataclass(frozen=True)
class Row:
    """One learner in a table.

    name: what the row is called, the folder of a run for instance.
    results: one evaluation for each number of shots.
    published: the published value beside each of the results, None where there is none.
    published_domains: for each of the results the published values of the domains of a mixture.
    seconds: how long training took, None where nothing was trained or nobody measured it.
    """

    name: str
    results: Sequence[Evaluation]
    published: Sequence[Published | None] = ()
    published_domains: Sequence[Mapping[str, Published]] = ()
    seconds: float | None = None


def percent(mean: float, ci95: float, signed: bool = False) -> str:
    """An accuracy or a difference, given in 0..1, as percentage points with its half-width: ``76.90 ± 0.50``."""
    return ACCURACY.text(mean, ci95, signed)


def table(rows: Sequence[Row], paired: bool = False, style: Style = "text") -> str:
    """One row a learner, one column a number of shots, and below it what the numbers were measured on.

    paired: add the paired difference of every row to the first one, on the same tasks.
    style: "text" for the terminal, "markdown" for a page, "csv" (one line a number, fractions) for a program.

    Raises ConfigError where paired rows were not measured on the same tasks, rows differ in their numbers of shots, or
    some hold accuracies and others errors of regression.
    """
    if style not in get_args(Style):
        raise ConfigError(f"there is no table style {style!r}; choose one of: {', '.join(get_args(Style))}")
    if style == "csv":
        return _csv(rows, paired)
    columns = table_columns(rows, paired)
    layout = {"text": "simple", "markdown": "github"}[style]
    alignment = ["left", *["right"] * (len(columns) - 1)]
    body = tabulate(columns, headers="keys", tablefmt=layout, colalign=alignment, disable_numparse=True)
    return "\n".join([body, "", *notes(rows)])


def notes(rows: Sequence[Row]) -> list[str]:
    """The lines below a table: what the numbers are, how tasks were learnt, and which tasks."""
    lines = [
        f"{_measure(rows).title}, mean ± 95% confidence interval over tasks.",
        *_lines("Adaptation", rows, _adaptation),
        *_lines("Precision", rows, _precision),
        *_lines("Protocol", rows, _protocol),
        *_domain_lines(rows),
    ]
    domains = [value for row in rows for values in row.published_domains for value in values.values()]
    sources = [value for row in rows for value in row.published if value] + domains
    if sources:
        lines.append("Published: " + "; ".join(dict.fromkeys(value.source for value in sources)) + ".")
    return lines


def _measure(rows: Sequence[Row]) -> Measure:
    """What all rows measured; ConfigError where they measured different things."""
    measures = {result.measure.name: result.measure for row in rows for result in row.results}
    if len(measures) > 1:
        raise ConfigError("the rows of a table hold accuracies and errors of regression; make a table of each kind")
    return next(iter(measures.values()))


def _lines(title: str, rows: Sequence[Row], describe: Callable[[Row], str]) -> list[str]:
    """One line for what is true of all rows; one for each kind of rows, with their names, if they differ."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(describe(row), []).append(row.name)
    if len(kinds) == 1:
        return [f"{title}: {text}." for text in kinds]
    return [f"{title} of {', '.join(names)}: {text}." for text, names in kinds.items()]


def _domain_lines(rows: Sequence[Row]) -> list[str]:
    """The accuracy per domain, if tasks keep to few domains, as those of a mixture of datasets do."""
    lines = []
    for row in rows:
        for result, published in zip(row.results, row.published_domains or [{}] * len(row.results)):
            parts = result.by_domain()
            if 1 < len(parts) <= _DOMAINS_SHOWN:
                cells = [
                    f"{name} {percent(part.mean, part.ci95)} ({part.protocol.tasks})"
                    + (f", published {published[name]}" if name in published else "")
                    for name, part in parts.items()
                ]
                lines.append(f"{row.name}, {result.protocol.shots}-shot by domain (tasks): {', '.join(cells)}.")
    return lines


def _adaptation(row: Row) -> str:
    return " and ".join(dict.fromkeys(result.adaptation for result in row.results))


def _precision(row: Row) -> str:
    return " and ".join(dict.fromkeys(result.precision for result in row.results))


def _protocol(row: Row) -> str:
    at = row.results[0].protocol
    shots = " and ".join(str(result.protocol.shots) for result in row.results)
    shots += " shot" if shots == "1" else " shots"
    if at.ways == 1:
        drawn = f"{at.tasks} tasks of {at.dataset}/{at.split}"
        return f"{shots}, {at.queries} query points, {drawn}, task seed {at.seed}"
    return (
        f"{at.ways} ways, {shots}, {at.queries} queries a class, {at.tasks} tasks of {at.dataset}/{at.split}"
        f"{at.drawn}, {at.statistics} statistics, task seed {at.seed}"
    )


def seeds_line(rows: Sequence[Row]) -> str:
    """The mean and the interval over several trainings of one learner that differ in their seed alone."""
    parts = []
    for results in zip(*(row.results for row in rows)):
        parts.append(f"{results[0].protocol.shots}-shot {results[0].measure.text(*over_seeds(results))}")
    names = ", ".join(row.name for row in rows)
    return f"Over {len(rows)} training seeds ({names}): {', '.join(parts)} (95% interval over trainings)."


def table_columns(rows: Sequence[Row], paired: bool) -> dict[str, list[str]]:
    """The cells of the table by the titles of its columns; ConfigError where rows differ in their numbers of shots."""
    if len({tuple(result.protocol.shots for result in row.results) for row in rows}) > 1:
        raise ConfigError("the rows of a table were measured at different numbers of shots; give each the same ones")
    measure = _measure(rows)
    columns = {"": [row.name for row in rows]}
    for position, reference in enumerate(rows[0].results):
        shots = f"{reference.protocol.shots}-shot"
        results = [row.results[position] for row in rows]
        columns[shots] = [measure.text(result.mean, result.ci95) for result in results]
        if paired:
            differences = [compare(result, reference) for result in results[1:]]
            columns[f"{shots}, minus {rows[0].name}"] = ["", *(measure.text(d.mean, d.ci95, True) for d in differences)]
        published = [row.published[position] if row.published else None for row in rows]
        if any(published):
            columns[f"{shots}, published"] = [str(value) if value else "" for value in published]
    if any(row.seconds is not None for row in rows):
        columns["training"] = ["" if row.seconds is None else f"{row.seconds:.0f} s" for row in rows]
    return columns


def _csv(rows: Sequence[Row], paired: bool) -> str:
    """One line an evaluation, everything as plain numbers."""
    _measure(rows)
    records = [
        _record(row, position, rows[0].results[position] if paired else None)
        for row in rows
        for position in range(len(row.results))
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, records[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().rstrip("\n")


def _record(row: Row, position: int, reference: Evaluation | None) -> Mapping[str, object]:
    result = row.results[position]
    at = result.protocol
    record: dict[str, object] = {"name": row.name, "learner": result.learner, "adaptation": result.adaptation}
    record["precision"] = result.precision
    record |= {"dataset": at.dataset, "split": at.split, "ways": at.ways, "shots": at.shots, "queries": at.queries}
    record |= {"within_domain": "" if at.within_domain is None else str(at.within_domain).lower()}
    record |= {"tasks": at.tasks, "seed": at.seed, "statistics": at.statistics}
    record |= {result.measure.name: f"{result.mean:.6f}", "ci95": f"{result.ci95:.6f}"}
    if reference is not None:
        difference = compare(result, reference)
        record |= {"difference": f"{difference.mean:.6f}", "difference_ci95": f"{difference.ci95:.6f}"}
    value = row.published[position] if row.published else None
    record |= {"published": value.accuracy / 100 if value else "", "training_seconds": row.seconds or ""}
    return record
