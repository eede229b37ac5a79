"""What the pages of a study show: numbers by row and column, what they cost, and what the papers have."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from kshot import recipes
from kshot.data.regression import FAMILIES
from kshot.errors import DataError, KshotError
from kshot.evaluation.results import Evaluation
from kshot.files import write_text
from kshot.learners import learners
from kshot.measures import ACCURACY, MEASURES, Statistics
from kshot.recipes import Published
from kshot.report import study_page
from kshot.report.study_numbers import Column, Number
from kshot.report.study_page import Curve, StudyContent
from kshot.runs.measurement import Measurement
from kshot.runs.run import Run
from kshot.studies.budget import length_of
from kshot.studies.cell import describe_evaluation
from kshot.studies.cell_folder import CellFolder
from kshot.studies.cells import Cell, is_reference
from kshot.studies.plan import duration
from kshot.studies.study_folder import StudyFolder

_MOST_DOMAINS = 10  # of a mixture; more than that are classes' groups, and no columns


class Done(NamedTuple):
    """A cell that is done."""

    cell: Cell
    result: dict[str, Any]
    run: Run


def write_pages(study: StudyFolder, summary: str) -> Path:
    """Write all pages of a study; returns the path of the HTML page. DataError if no cell is done."""
    done = done_cells(study)
    if not done:
        raise DataError(f"no cell of {study.name} is done ({summary}); run: {study.command('run')}")
    content = _content(study, done, summary)
    page = study.folder / "report.html"
    write_text(page, study_page.page(content))
    write_text(study.folder / "table.md", study_page.markdown(content))
    write_text(study.folder / "table.tex", study_page.latex(content))
    write_text(study.folder / "table.csv", study_page.numbers_csv(content))
    write_text(study.folder / "paired.csv", study_page.pairs_csv(content))
    return page


def done_cells(study: StudyFolder) -> list[Done]:
    """The cells of a study that are done, with their results and runs."""
    folders = [study.cell_folder(cell) for cell in study.cells]
    return [
        Done(folder.read(), result, Run(folder.run_path, root=study.root))
        for folder in folders
        if (result := folder.result()) is not None
    ]


def _content(study: StudyFolder, done: Sequence[Done], summary: str) -> StudyContent:
    rows: dict[str, dict[str, dict[Column, Number]]] = {}
    measured = {each.cell.name: each for each in done}
    for members in entries_of(study.cells):
        finished = [measured[cell.name] for cell in members if cell.name in measured]
        for name, numbers in rows_of_entry(members[0], finished, study.file.tables).items():
            rows.setdefault(members[0].dataset, {}).setdefault(name, {}).update(numbers)
    return StudyContent(
        title=study.file.title,
        description=study.file.description,
        remarks=_remarks(study, len(done), summary),
        rows=rows,
        reference={dataset: _reference(study, of_dataset) for dataset, of_dataset in rows.items()},
        costs={dataset: _costs(study, [each for each in done if each.cell.dataset == dataset]) for dataset in rows},
        curves={dataset: _curves([each for each in done if each.cell.dataset == dataset]) for dataset in rows},
        cells=_plan_table(study),
        notes=_notes(done),
        configurations=[(each.cell.name, yaml.safe_dump(each.cell.plain(), sort_keys=False)) for each in done],
    )


def entries_of(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """The cells of each entry: those that differ in their seed alone."""
    by_entry: dict[str, list[Cell]] = {}
    for cell in cells:
        by_entry.setdefault(cell.entry, []).append(cell)
    yield from by_entry.values()


def rows_of_entry(cell: Cell, done: Sequence[Done], tables: Collection[str]) -> dict[str, dict[Column, Number]]:
    """The rows of an entry, one for each kind of statistics, whether it was measured or not."""
    measurement, _ = Measurement.of(dict(cell.measure))  # type: ignore[arg-type]
    offered = learners[cell.options["learner"]["name"]].statistics_offered
    regression = cell.dataset in FAMILIES  # whose networks normalise nothing, so that the kinds are one
    kinds: Sequence[Statistics] = measurement.statistics or (offered[:1] if regression else offered)
    rows: dict[str, dict[Column, Number]] = {}
    for kind in kinds:
        name = cell.row if kind == "running" or regression else f"{cell.row}, {kind}"
        for shots in measurement.shots:
            values, domains, first = _values(done, shots, kind)
            ways = first.protocol.ways if first else 1 if regression else measurement.ways or 5
            data, measure = (_tasks_of(first), first.measure) if first else ("", ACCURACY)
            known = _published(cell, ways, shots, kind, tables)
            for domain in sorted({*known, *domains, ""}):
                column = Column(cell.dataset, ways, shots, domain)
                of_domain = domains.get(domain, {}) if domain else values
                if of_domain or domain in known or not domain:
                    rows.setdefault(name, {})[column] = Number(of_domain, data, known.get(domain), measure)
    return rows


def _values(
    done: Sequence[Done], shots: int, kind: Statistics
) -> tuple[dict[int, Any], dict[str, dict[int, Any]], Evaluation | None]:
    """The values per task by seed, those by domain and seed, and the evaluation of the first seed."""
    values: dict[int, Any] = {}
    domains: dict[str, dict[int, Any]] = {}
    first = None
    for each in done:
        for result in each.run.evaluations:
            at = result.protocol
            # a run is like any other, and may have been measured in other ways, too
            if (at.shots, at.statistics) != (shots, kind) or not _is_of_cell(result, each):
                continue
            values[each.cell.seed] = result.values
            first = first or result
            parts = result.by_domain()
            if 1 < len(parts) <= _MOST_DOMAINS:
                for domain, part in parts.items():
                    domains.setdefault(domain, {})[each.cell.seed] = part.values
    return values, domains, first


def _is_of_cell(result: Evaluation, done: Done) -> bool:
    """Whether an evaluation in the run of a cell is one that the study asked for."""
    described = describe_evaluation(result)
    described.pop("seconds")
    return any(described.items() <= ours.items() for ours in done.result["measured"])


def _tasks_of(result: Evaluation) -> str:
    """What identifies the tasks, whatever the learner that was measured on them."""
    return f"{result.data} {replace(result.protocol, statistics='running')}"


def _published(cell: Cell, ways: int, shots: int, kind: Statistics, tables: Collection[str]) -> dict[str, Published]:
    """What the papers have for a cell, by domain ("" for all tasks)."""
    learner = recipes.learner_in_papers(cell.options["learner"], cell.dataset)
    backbone = recipes.backbone_in_papers(cell.options["backbone"])
    if learner is None or backbone is None or cell.measure.get("adaptation") is not None:
        return {}
    names = {row["dataset"] for row in recipes.published_rows() if row["dataset"].split("/")[0] == cell.dataset}
    # statistics of training do not look at the query set, either
    kinds = [kind, "inductive"] if kind == "running" else [kind]
    found: dict[str, Published] = {}
    for name in names:
        for each in kinds:
            shape = {"ways": ways, "shots": shots, "learner": learner, "backbone": backbone}
            value = recipes.published(name, **shape, statistics=each, tables=tables)  # type: ignore[arg-type]
            if value is not None:
                found.setdefault(name.partition("/")[2], value)
    return found


def _reference(study: StudyFolder, rows: Mapping[str, object]) -> str:
    wanted = study.file.reference
    return next((name for name in rows if wanted is not None and is_reference(name, wanted)), next(iter(rows)))


def _remarks(study: StudyFolder, done: int, summary: str) -> list[str]:
    remarks = [study.file.unknown] if study.file.unknown else []
    if done < len(study.cells):
        remarks.insert(0, f"This study is unfinished: {summary}. {study.command('run')} goes on.")
    for cell in study.cells:
        failure = study.cell_folder(cell).failure()
        if failure is not None and not study.cell_folder(cell).result_path.exists():
            again = " (--retry-failed true tries again)" if failure["lasting"] else ""
            remarks.append(f"{cell.name} failed: {failure['message']}{again}")
    return remarks


def _costs(study: StudyFolder, done: Sequence[Done]) -> dict[str, list[str]]:
    """What each entry took: images beside those of the recipe, minutes, memory."""
    estimates, columns = study.estimates(), dict[str, list[str]]()
    for members in entries_of([each.cell for each in done]):
        results = [each.result for each in done if each.cell.entry == members[0].entry]
        recipe = estimates.get(members[0].name, {}).get("recipe_images")
        images = statistics.mean(result["images"] for result in results)
        seconds = [result["processor_seconds"] for result in results]
        hardware = results[0]["hardware"]
        line = {
            "": members[0].row,
            "trainings": str(len(results)),
            "tasks seen": f"{statistics.mean(result['tasks'] for result in results):,.0f}",
            "images seen": f"{images:,.0f}",
            "of the full training": f"{100 * images / recipe:.3g} %" if recipe else "",
            "processor time": "a cell was killed" if None in seconds else duration(statistics.mean(seconds)),
            "threads": str(hardware["threads"]),
        }
        for title, text in line.items():
            columns.setdefault(title, []).append(text)
    return columns


def _curves(done: Sequence[Done]) -> list[Curve]:
    """Validation accuracy against images seen, the mean over the trainings of an entry."""
    curves = []
    for members in entries_of([each.cell for each in done]):
        several = [each for each in done if each.cell.entry == members[0].entry]
        try:
            metrics = [each.run.metrics() for each in several]
        except KshotError:
            continue
        if any("validation_accuracy" not in each for each in metrics):
            continue
        epochs = min(len(each["epoch"]) for each in metrics)
        accuracy = np.mean([100 * each["validation_accuracy"][:epochs] for each in metrics], axis=0)
        result = several[0].result
        per_epoch = result["images"] / result["tasks"] * length_of(several[0].cell.options)[1]
        before = result["images"] - per_epoch * result["epochs"]
        curves.append(Curve(members[0].row, before + per_epoch * np.arange(1, epochs + 1), accuracy))
    return curves


def _plan_table(study: StudyFolder) -> dict[str, list[str]]:
    """Every cell with its state, what it was expected to take, and what it took."""
    estimates, columns = study.estimates(), dict[str, list[str]]()
    for cell in study.cells:
        folder: CellFolder = study.cell_folder(cell)
        progress, result = folder.progress(), folder.result()
        expected = estimates.get(cell.name, {}).get("seconds")
        took = result["seconds"] if result else None
        line = {
            "cell": cell.name,
            "state": progress.state,
            "expected, processor": duration(expected) if expected else "",
            "took, clock": duration(took) if took else "",
            "sittings": str(result["sittings"]) if result else "",
            "kshot": ", ".join(_short(version) for version in result["version"]) if result else "",
        }
        for title, text in line.items():
            columns.setdefault(title, []).append(text)
    return columns


def _short(version: str) -> str:
    """A version with the first letters of its commit."""
    number, _, commit = version.partition("@")
    return f"{number} {commit[:7]}{'-dirty' if commit.endswith('-dirty') else ''}"


def _notes(done: Sequence[Done]) -> list[str]:
    measured = [at for each in done for at in each.result["measured"]]
    protocols = {
        f"{Column('', at['ways'], at['shots']).title}: {at['tasks']} tasks of {at['dataset']}/{at['split']}, "
        f"{at['queries']} {'queries per class' if at['ways'] > 1 else 'query points'}, task seed {at['seed']}"
        for at in measured
    }
    titles = sorted({MEASURES[at["measure"]].title for at in measured})
    machines = {
        f"{hardware['gpu'] or hardware['cpu']}, {hardware['cores']} cores, torch {hardware['torch']}"
        for hardware in (each.result["hardware"] for each in done)
    }
    return [
        f"{' or '.join(titles)}: mean ± 95 % interval over tasks, and in brackets the interval over training seeds, "
        "if there are several. Measured and published intervals meet if they have a point in common; the wider of the "
        "two measured ones counts.",
        "Differences between rows are paired over the same tasks, with the mean over seeds for each task. * marks a "
        "paired t-test over tasks that is below 0.05 after Holm's correction for all pairs of the column; it does not "
        "cover the luck of a training.",
        "Tasks: " + "; ".join(sorted(protocols)) + ".",
        "Hardware: " + "; ".join(sorted(machines)) + ".",
    ]
