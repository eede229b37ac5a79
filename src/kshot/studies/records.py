"""Results as data: one JSON per measured cell, from which the pages of the repository are built.

    results/NN-SECTION/page.md                  prose by hand, with {{ table: NAME }}, {{ fact: NAME }} and {{ study }}
    results/NN-SECTION/facts.json               numbers that the prose speaks of, by name
    results/NN-SECTION/NAME/table.json          the columns of a table
    results/NN-SECTION/NAME/NN-ROW.json         one measured cell: its row of the table, and what is known of it
    results/NN-SECTION/cells/ENTRY.json         one cell of a study, as `kshot results add` writes it
    results/NAME/page.md                        a page of its own, docs/NAME.md
    results/NAME/VARIANT/EXPERIMENT.csv, .json  what `kshot theory EXPERIMENT --out results/NAME/VARIANT` wrote

`docs/results.md` is the numbered pages in their order; README.md has a block between two comments for each table
that it shows, ``<!-- results: SECTION/NAME -->`` and ``<!-- end of results -->``, and for each number,
``<!-- fact: SECTION/NAME -->`` and ``<!-- end of fact -->``. What a number may be, and how it is
read from the file of an experiment, says ``record_values.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kshot.errors import ConfigError, DataError
from kshot.files import read_json, read_text, write_json, write_text
from kshot.measures import ACCURACY, MEASURES
from kshot.report.study_numbers import Column, Number
from kshot.studies.pages import Done, done_cells, entries_of, rows_of_entry
from kshot.studies.record_values import value_text
from kshot.studies.study_folder import StudyFolder

_PLACE = re.compile(r"\{\{ (table|fact|study)(?:: ([\w.-]+))? \}\}")
_BLOCK = re.compile(r"(<!-- results: (\S+) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)
_FACT = re.compile(r"(<!-- fact: ([\w-]+)/([\w-]+) -->)(.*?)(<!-- end of fact -->)", re.DOTALL)
_AT_THE_END = 90  # sections from this number on stay at the end of the page
_HEAD = "<!-- Built from results/ by `kshot results build`; change the files there, and build again. -->\n\n"


def build(repository: Path) -> dict[Path, str]:
    """The text of every page that is built, by its path; nothing is written.

    Raises
    ------
    ConfigError
        If the folder has no results.
    DataError
        If a file is damaged, or a page speaks of a table or fact that is not there.
    """
    folder = repository / "results"
    sections = sorted(path.parent for path in folder.glob("[0-9]*/page.md"))
    if not sections:
        raise ConfigError(f"{folder} holds no results; run this in a clone of kshot, or name one with --repository")
    text = "\n\n".join(_page(section).strip("\n") for section in sections)
    pages = {repository / "docs" / "results.md": _headed(text)}
    for path in sorted(folder.glob("[!0-9]*/page.md")):
        pages[repository / "docs" / f"{path.parent.name}.md"] = _headed(_page(path.parent).strip("\n"))
    readme = repository / "README.md"
    if readme.exists():
        text = _BLOCK.sub(lambda block: _block(block, folder), read_text(readme))
        pages[readme] = _FACT.sub(lambda place: place[1] + _fact(_section(folder, place[2]), place[3]) + place[5], text)
    return pages


def _headed(text: str) -> str:
    """A page with a word on where it comes from below its title."""
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{_HEAD.strip()}\n{rest}\n"


def write(repository: Path) -> list[Path]:
    """Build all pages and write those that change; returns their paths."""
    changed = [(path, text) for path, text in build(repository).items() if not path.exists() or read_text(path) != text]
    for path, text in changed:
        write_text(path, text)
    return [path for path, _ in changed]


def add(study: StudyFolder, repository: Path) -> list[Path]:
    """Write one JSON for each entry of a study that is done, and a page if there is none; returns the paths.

    Raises DataError if no cell is done.
    """
    done = done_cells(study)
    if not done:
        raise DataError(f"no cell of {study.name} is done; run: {study.command('run')}")
    results = repository / "results"
    numbered = sorted(results.glob(f"*-{study.name}"))
    numbers = [int(path.name.split("-")[0]) for path in results.glob("[0-9]*-*")]
    last = max((number for number in numbers if number < _AT_THE_END), default=0)
    section = numbered[0] if numbered else results / f"{last + 1:02}-{study.name}"
    written = []
    for members in entries_of(study.cells):
        finished = [each for each in done if each.cell.entry == members[0].entry]
        if finished:
            place = section / "cells" / f"{members[0].entry}.json"
            write_json(place, _record(study, finished))
            written.append(place)
    page = section / "page.md"
    if not page.exists():
        write_text(page, f"## {study.file.title}\n\n{study.file.description}\n\n{{{{ study }}}}\n")
        written.append(page)
    return written


def _record(study: StudyFolder, done: Sequence[Done]) -> dict[str, Any]:
    """Everything about the trainings of one entry."""
    first = done[0]
    by_seed = {str(each.cell.seed): each.result for each in done}
    return {
        "study": study.name,
        "entry": first.cell.entry,
        "recipe": first.cell.recipe,
        "options": first.cell.options,
        "command": _command(study, first.cell.entry),
        "versions": sorted({version for result in by_seed.values() for version in result["version"]}),
        "hardware": first.result["hardware"],
        "seeds": [each.cell.seed for each in done],
        "seconds": {seed: result["seconds"] for seed, result in by_seed.items()},
        "processor_seconds": {seed: result["processor_seconds"] for seed, result in by_seed.items()},
        "tasks": {seed: result["tasks"] for seed, result in by_seed.items()},
        "images": {seed: result["images"] for seed, result in by_seed.items()},
        "measured": [
            _measured(row, column, number)
            for row, numbers in rows_of_entry(first.cell, done, study.file.tables).items()
            for column, number in numbers.items()
            if number.values
        ],
        "protocol": dict(first.cell.measure),
    }


def _command(study: StudyFolder, entry: str) -> str:
    """What measures an entry again, on any machine."""
    budget = f" --budget {study.budget_begun}" if study.budget_begun != study.file.budget else ""
    return f"kshot study run {Path(study.typed).name} --cells {entry}{budget}"


def _measured(row: str, column: Column, number: Number) -> dict[str, Any]:
    """A number with its intervals; fractions, or squared errors."""
    over_tasks, over_seeds = number.over_tasks, number.over_seeds
    published = number.published
    return {
        "row": row,
        "dataset": column.dataset,
        "ways": column.ways,
        "shots": column.shots,
        "domain": column.domain or None,
        "tasks": len(number.per_task),
        "measure": number.measure.name,
        "mean": over_tasks.mean,
        "ci95_over_tasks": over_tasks.ci95,
        "ci95_over_seeds": over_seeds.ci95 if len(number.values) > 1 else None,
        "per_seed": {str(seed): float(values.mean()) for seed, values in number.values.items()},
        "published": None if published is None else published.accuracy,
        "published_ci95": None if published is None else published.ci95,
        "published_in": None if published is None else published.source,
    }


def _page(section: Path) -> str:
    """A page with its tables and facts in their places."""

    def fill(match: re.Match[str]) -> str:
        kind, name = match[1], match[2]
        if kind == "table":
            return markdown_table(section / str(name))
        if kind == "study":
            return _study_table(section)
        return _fact(section, name)

    return _PLACE.sub(fill, read_text(section / "page.md"))


def _fact(section: Path, name: str) -> str:
    facts = _json(section / "facts.json")
    if name not in facts:
        raise DataError(f"a page speaks of the fact {name}, which {section / 'facts.json'} does not have")
    return value_text(facts[name]["value"], section)


def _columns_and_rows(folder: Path) -> tuple[list[str], list[list[str]]]:
    columns = _json(folder / "table.json")["columns"]
    records = [_json(path) for path in sorted(folder.glob("[0-9]*.json"))]
    if not records:
        raise DataError(f"{folder} holds no measured cell")
    shown = [column.strip() for column in columns]  # two columns of one name differ in spaces behind it
    return shown, [
        [value_text(record["values"].get(column, ""), folder.parent) for column in columns] for record in records
    ]


def markdown_table(folder: Path) -> str:
    """The table of a folder in GitHub's Markdown."""
    columns, rows = _columns_and_rows(folder)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines).replace(
        "| --- ", "|---"
    )


def _section(results: Path, name: str) -> Path:
    """The numbered section that README.md calls by the name alone."""
    found = sorted(results.glob(f"[0-9]*-{name}"))
    if not found:
        raise DataError(f"README.md shows numbers of {name}, which {results} does not have")
    return found[0]


def _block(block: re.Match[str], results: Path) -> str:
    """A block of README.md: the table as a terminal shows it, with the words of the command that prints it."""
    section, _, name = block[2].partition("/")
    columns, rows = _columns_and_rows(_section(results, section) / name)
    titles = [""]
    for column in columns[1:]:
        paired = column.startswith("minus ")
        titles.append(f"{titles[-1]}, {column.removesuffix(' (paired)').lower()}" if paired else column)
    cells = [[row[0].lower(), *row[1:]] for row in rows]
    text = tabulate(cells, titles, disable_numparse=True, colalign=["left", *["right"] * (len(titles) - 1)])
    before = re.match(r"(\s*<!-- test: [^\n]*-->\n)?", block[3])
    kept = before[0] if before else ""
    return block[1] + kept + "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines()) + "\n" + block[4]


def _study_table(section: Path) -> str:
    """One table for each dataset of a study: rows by kind of tasks, with seeds, tasks and images."""
    records = [_json(path) for path in sorted((section / "cells").glob("*.json"))]
    by_dataset: dict[str, dict[str, dict[str, str]]] = {}
    for record in records:
        for measured in record["measured"]:
            line = by_dataset.setdefault(measured["dataset"], {}).setdefault(
                measured["row"],
                {
                    "": measured["row"],
                    "trainings": str(len(record["seeds"])),
                    "images seen": f"{sum(record['images'].values()) / len(record['seeds']):,.0f}",
                },
            )
            title = Column(measured["dataset"], measured["ways"], measured["shots"], measured["domain"] or "").title
            seeds = measured["ci95_over_seeds"]
            measure = MEASURES[measured.get("measure", ACCURACY.name)]
            line[title] = measure.text(measured["mean"], measured["ci95_over_tasks"])
            line[title] += f" (± {measure.scale * seeds:.{measure.digits}f})" if seeds is not None else ""
            if measured["published"] is not None:
                line[f"{title}, published"] = f"{measured['published']:g}"
    parts = []
    for dataset, lines in by_dataset.items():
        titles = list(dict.fromkeys(title for line in lines.values() for title in line))
        rows = [[line.get(title, "") for title in titles] for line in lines.values()]
        parts.append(f"**{dataset}**\n\n{tabulate(rows, titles, tablefmt='github', disable_numparse=True)}")
    return "\n\n".join(parts)


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); put it back from the repository's history") from error
