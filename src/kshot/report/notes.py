"""The lines below a table: what its numbers are, how tasks were learnt, and which tasks they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kshot.evaluation.results import Evaluation
from kshot.recipes import Published
from kshot.report.rows import Row

_DOMAINS_SHOWN = 10


def notes(rows: Sequence[Row]) -> list[str]:
    """The lines below the table of these rows; what is true of all of them is said once."""
    return [
        f"{rows[0].results[0].measure.title}, mean ± 95% confidence interval over tasks.",
        *_lines("Adaptation", rows, _adaptation),
        *_lines("Precision", rows, _precision),
        *_lines("Protocol", rows, _protocol),
        *_together(rows),
        *_domain_lines(rows),
        *_sources(rows),
    ]


def task_text(results: Sequence[Evaluation]) -> str:
    """The tasks that results were measured on, in words; the results may differ in their numbers of shots."""
    at = results[0].protocol
    shots = " and ".join(str(result.protocol.shots) for result in results)
    shots += " shot" if shots == "1" else " shots"
    if at.ways == 1:
        return f"{shots}, {at.queries} query points, {at.tasks} tasks of {at.dataset}/{at.split}"
    return f"{at.ways} ways, {shots}, {at.query_text}, {at.tasks} tasks of {at.dataset}/{at.split}{at.drawn}"


def _lines(title: str, rows: Sequence[Row], describe: Callable[[Row], str]) -> list[str]:
    """One line for what is true of all rows; one for each kind of rows, with their names, if they differ."""
    kinds: dict[str, list[str]] = {}
    for row in rows:
        kinds.setdefault(describe(row), []).append(row.name)
    if len(kinds) == 1:
        return [f"{title}: {text}." for text in kinds]
    return [f"{title} of {', '.join(names)}: {text}." for text, names in kinds.items()]


def _together(rows: Sequence[Row]) -> list[str]:
    """What to know of heads that look at all query images together, and of rows that do next to rows that do not."""
    lines = []
    of_heads = [row.name for row in rows if row.results[0].transductive]
    if of_heads and rows[0].results[0].protocol.query_balance == "balanced":
        lines.append(
            f"{', '.join(of_heads)}: the head looks at all query images of a task together, which are equally many of "
            f"each class here; heads may exploit that. Measure with query_balance dirichlet, too."
        )
    if len({row.results[0].sees_queries for row in rows}) > 1:
        lines.append(
            "Rows whose query images are looked at all together know more about a task than the others: a difference "
            "between the two kinds is no ranking of methods."
        )
    return lines


def _domain_lines(rows: Sequence[Row]) -> list[str]:
    """The accuracy per domain, if each task keeps to one of a few domains, as those of a mixture of datasets do."""
    lines = []
    for row in rows:
        for result, published in zip(row.results, row.published_domains or [{}] * len(row.results)):
            parts = result.by_domain()
            if 1 < len(parts) <= _DOMAINS_SHOWN:
                cells = [
                    f"{name} {part.measure.text(part.mean, part.ci95)} ({part.protocol.tasks})"
                    + (f", published {published[name]}" if name in published else "")
                    for name, part in parts.items()
                ]
                average = f"average over domains {result.measure.text(*result.over_domains())}"
                if all(name in published for name in parts):
                    mean = sum(value.accuracy for value in published.values()) / len(published)
                    average += f", published {mean:.2f}"
                where = f"{row.name}, {result.protocol.shots}-shot by domain (tasks)"
                lines.append(f"{where}: {', '.join(cells)}; {average}.")
    return lines


def _sources(rows: Sequence[Row]) -> list[str]:
    """Where the published values stand, if there are any."""
    values: list[Published] = [value for row in rows for value in row.published if value]
    values += [value for row in rows for domains in row.published_domains for value in domains.values()]
    return ["Published: " + "; ".join(dict.fromkeys(value.source for value in values)) + "."] if values else []


def _adaptation(row: Row) -> str:
    return " and ".join(dict.fromkeys(result.adaptation for result in row.results))


def _precision(row: Row) -> str:
    return " and ".join(dict.fromkeys(result.precision for result in row.results))


def _protocol(row: Row) -> str:
    at = row.results[0].protocol
    statistics = "" if at.ways == 1 else f", {at.statistics} statistics"
    return f"{task_text(row.results)}{statistics}, task seed {at.seed}"
