"""Which evaluations of runs stand in one table: those on the same tasks, as many runs as possible together."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

from kshot.errors import DataError
from kshot.evaluation.results import Evaluation
from kshot.measures import Statistics
from kshot.report.content import RunContent
from kshot.report.notes import task_text
from kshot.report.published import row_of
from kshot.report.rows import Row
from kshot.report.tables import Table, seeds_line, table

_OWN = "the learner's own"


@dataclass(frozen=True, eq=False)
class Section:
    """One table of a page.

    Attributes
    ----------
    title
        The tasks that everything in the table was measured on, in words.
    table
        The rows, paired with the first one if there are several.
    lines
        What stands below: the notes of the table, and one line for each group of runs that differ only in their
        training seed.
    """

    title: str
    table: Table
    lines: Sequence[str]


class _Family(NamedTuple):
    """What results in one table have in common; rows have the same adaptation, or each its learner's own."""

    adaptation: str
    precision: str
    dataset: str
    split: str
    drawn: str
    ways: int
    queries: int
    seed: int
    tasks: int
    data: str


class _Key(NamedTuple):
    """One column of such a table."""

    family: _Family
    shots: int


_Results = Mapping[_Key, Mapping[Statistics, Evaluation]]


def sections(contents: Sequence[RunContent], seed_groups: Sequence[Sequence[int]]) -> list[Section]:
    """The fewest tables that show every run that was measured; a run may stand in several of them.

    Each table holds all runs that were measured on its tasks, so a page about runs that share some has one table.
    """
    by_key = [_by_key(content.evaluations) for content in contents]
    missing = [position for position, results in enumerate(by_key) if results]
    made: list[tuple[int, Section]] = []
    while missing:
        key = _best_key(by_key, missing)
        members = [position for position, results in enumerate(by_key) if key in results]
        rows = _rows(contents, by_key, members, key)
        made.append((min(members), _section(rows, seed_groups)))
        missing = [position for position in missing if position not in members]
    return [section for _, section in sorted(made, key=lambda pair: pair[0])]


def shared_rows(contents: Sequence[RunContent]) -> list[Row]:
    """The rows of the one table that shows all runs; DataError, with what to type, if no tasks are shared by all."""
    check_measured(contents)
    by_key = [_by_key(content.evaluations) for content in contents]
    everybody = range(len(contents))
    shared = set.intersection(*(set(results) for results in by_key))
    if not shared:
        lines = remarks(contents, sections(contents, ()))
        raise DataError(f"the runs share no evaluation on the same tasks. {' '.join(lines)}")
    return list(_rows(contents, by_key, everybody, _best_key(by_key, everybody)).values())


def remarks(contents: Sequence[RunContent], shown: Sequence[Section]) -> list[str]:
    """What keeps the runs from standing in one table, and what to do about it; nothing if they do."""
    lines = [
        f"{content.name} has no evaluation of its present weights; run: kshot evaluate {_typed([content])}"
        for content in contents
        if not content.evaluations
    ]
    if len(shown) < 2:
        return lines
    measured = [content for content in contents if content.evaluations]
    datasets = dict.fromkeys(str(content.config["data"]["name"]) for content in measured)
    if len(datasets) > 1:
        lines.append(
            f"The runs were trained on different datasets ({', '.join(datasets)}). Accuracies on different classes "
            "cannot be compared, so there is one table for each kind of tasks."
        )
    for dataset in datasets:
        alike = [content for content in measured if content.config["data"]["name"] == dataset]
        if not set.intersection(*(set(_by_key(content.evaluations)) for content in alike)):
            prepared = {result.data for content in alike for result in content.evaluations}
            if len(prepared) > 1:
                lines.append(f"{dataset} was prepared again between some of these measurements, with other content.")
            lines.append(
                f"The runs on {dataset} were not all measured on the same tasks, so their differences cannot be "
                f"computed; to measure them on the same ones, run: kshot compare {_typed(alike)}"
            )
    return lines


def check_measured(contents: Sequence[RunContent]) -> None:
    """DataError, with what to type, if none of the runs was measured."""
    if not any(content.evaluations for content in contents):
        commands = "; ".join(f"kshot evaluate {_typed([content])}" for content in contents)
        names = ", ".join(content.path_text for content in contents) or "a page about no runs"
        raise DataError(f"{names}: no evaluation to show; run: {commands or 'kshot report RUN'}")


def _typed(contents: Sequence[RunContent]) -> str:
    return shlex.join(content.path_text for content in contents)


def _by_key(evaluations: Sequence[Evaluation]) -> dict[_Key, dict[Statistics, Evaluation]]:
    by_key: dict[_Key, dict[Statistics, Evaluation]] = {}
    for result in evaluations:
        at = result.protocol
        tasks = (at.dataset, at.split, at.drawn, at.ways, at.queries, at.seed, at.tasks, result.data or "")
        for adaptation in [result.adaptation, *([_OWN] if result.own_adaptation else [])]:
            key = _Key(_Family(adaptation, result.precision, *tasks), at.shots)
            by_key.setdefault(key, {})[at.statistics] = result
    return by_key


def _best_key(by_key: Sequence[_Results], missing: Sequence[int]) -> _Key:
    """What most of the missing runs were measured on: by their own adaptations if possible, and with most tasks."""
    counts: dict[_Key, int] = {}
    for position in missing:
        for key in by_key[position]:
            counts[key] = counts.get(key, 0) + 1

    def preference(key: _Key) -> tuple[object, ...]:
        family = key.family
        return counts[key], family.adaptation == _OWN, family.tasks, family.precision == "float32", key

    return max(counts, key=preference)


def _rows(
    contents: Sequence[RunContent], by_key: Sequence[_Results], members: Sequence[int], chosen: _Key
) -> dict[tuple[int, Statistics], Row]:
    """One row for each kind of statistics that a run was measured with, at all numbers of shots that the runs share."""
    shared = set.intersection(*(set(by_key[position]) for position in members))
    keys = sorted(key for key in shared if key.family == chosen.family)
    kinds = {position: _kinds(by_key[position], keys) for position in members}
    if not all(kinds.values()):  # a run has no kind of statistics at all of these numbers of shots
        keys = [chosen]
        kinds = {position: _kinds(by_key[position], keys) for position in members}
    rows = {}
    for position in members:
        content = contents[position]
        for kind in kinds[position]:
            name = content.name if kind == "running" else f"{content.name}, {kind}"
            rows[position, kind] = row_of(name, content.config, [by_key[position][key][kind] for key in keys])
    return rows


def _kinds(results: _Results, keys: Sequence[_Key]) -> list[Statistics]:
    return [kind for kind in get_args(Statistics) if all(kind in results[key] for key in keys)]


def _section(rows: Mapping[tuple[int, Statistics], Row], seed_groups: Sequence[Sequence[int]]) -> Section:
    seeds = []
    for group in seed_groups:
        for kind in get_args(Statistics):
            alike = [rows[position, kind] for position in group if (position, kind) in rows]
            if len(alike) > 1:
                seeds.append(seeds_line(alike))
    first = next(iter(rows.values()))
    made = table(list(rows.values()), paired=len(rows) > 1)
    return Section(task_text(first.results), made, [*made.notes, *seeds])
