"""What a study would cost: cells, missing data, hours, memory and disk, from short trials on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from kshot import data as datasets
from kshot.data import store
from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.errors import ConfigError, DataError, check_positive
from kshot.files import read_json, write_text
from kshot.studies.budget import Budget, Costs, length_of, shortened
from kshot.studies.cells import Cell
from kshot.studies.engines.local import end_with_parent, environment, last_words

Trial = Mapping[str, Any]

_LONGEST_TRIAL = 3600  # seconds


@dataclass(frozen=True)
class PlannedCell:
    """A cell as it would be run.

    Attributes
    ----------
    cell
        With its length: that of the recipe, or shortened to the budget.
    recipe_images
        Images that the training by the recipe would see; None without a trial.
    seconds
        What it costs; None without a trial.
    costs
        What a task, a validation and a measurement cost; None without a trial.
    problem
        Why the cell cannot be run, or was not tried; empty if nothing is in its way.
    """

    cell: Cell
    recipe_images: int | None = None
    seconds: float | None = None
    costs: Costs | None = None
    problem: str = ""


@dataclass(frozen=True, repr=False)
class Plan:
    """What `Study.plan` found; nothing was run but trials.

    Attributes
    ----------
    name
        Of the study.
    cells
        All cells.
    missing
        The datasets that are not prepared, and where they can be had.
    """

    name: str
    cells: Sequence[PlannedCell]
    missing: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """Of all cells whose cost is known."""
        return sum(cell.seconds or 0.0 for cell in self.cells)

    def __str__(self) -> str:
        rows, by_entry = [], dict[str, list[PlannedCell]]()
        problems: dict[str, list[str]] = {}
        for cell in self.cells:
            by_entry.setdefault(cell.cell.entry, []).append(cell)
        for entry, members in by_entry.items():
            first, costs = members[0], members[0].costs
            epochs, tasks, extra = length_of(first.cell.options) if costs is not None else (0, 0, 0)
            each = duration(first.seconds) if first.seconds is not None else "not tried"
            if costs is None and first.cell.dataset in self.missing:
                each = "not prepared"
            elif costs is None and first.problem:
                each = "see below"
                problems.setdefault(first.problem, []).append(entry)
            rows.append(
                [
                    entry,
                    first.cell.dataset,
                    " ".join(str(member.cell.seed) for member in members),
                    f"{epochs * tasks + extra:,}" if costs is not None else "",
                    each,
                    duration(sum(member.seconds or 0 for member in members)) if costs is not None else "",
                    f"{costs.memory:.0f}" if costs is not None else "",
                    f"{costs.disk * len(members):.0f}" if costs is not None else "",
                ]
            )
        titles = ["cell", "data", "seeds", "tasks", "each", "together", "memory, MiB", "disk, MiB"]
        lines = [tabulate(rows, titles, disable_numparse=True, colalign=["left", "left", *["right"] * 6]), ""]
        known = [cell for cell in self.cells if cell.costs is not None]
        kinds = " and ".join(sorted({cell.costs.seconds_are for cell in known if cell.costs is not None}))
        text = f"{len(self.cells)} cells, {duration(self.seconds)} of {kinds or 'processor'} time on this machine"
        unknown = len(self.cells) - len(known)
        lines.append(text + (f", and {unknown} cells whose cost is not known" if unknown else ""))
        lines += [f"{', '.join(entries)}: {problem}" for problem, entries in problems.items()]
        for dataset, where in self.missing.items():
            lines.append(f"not prepared: {dataset}. {where}")
        return "\n".join(lines)

    __repr__ = __str__


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 86_400:.0f} days"


def make_plan(
    name: str,
    cells: Sequence[Cell],
    *,
    folder: Path,
    root: Path | str | None,
    budget: Budget,
    trial_seconds: float,
    threads: int,
    say: Callable[[str], None],
) -> Plan:
    """Try each training for a few seconds, one after the other, as far as that was not done before.

    Parameters
    ----------
    name
        Of the study.
    cells
        Its cells.
    folder
        Where the trials are kept.
    root
        The folder of prepared datasets.
    budget
        What a cell may cost.
    trial_seconds
        How long each trial trains, about, an hour at most; 0 for no other trials than those of before.
    threads
        Of each cell.
    say
        Called with a line before each trial.

    Raises
    ------
    ConfigError
        If trials are to take less than no time or more than an hour, or there are no threads.
    """
    check_positive(threads=threads)
    if not 0 <= trial_seconds <= _LONGEST_TRIAL:
        raise ConfigError(
            f"trials of {trial_seconds:g} seconds; choose 0 to {_LONGEST_TRIAL}, of which a few are enough"
        )
    missing = missing_data(cells, root)
    planned = []
    for cell in cells:
        trial = _tried(cell, folder, root=root, seconds=trial_seconds, threads=threads, say=say)
        planned.append(_planned(cell, trial, budget, missing))
    return Plan(name, planned, missing)


def missing_data(cells: Sequence[Cell], root: Path | str | None) -> dict[str, str]:
    """The datasets of the cells that are not prepared, and what to do about each."""
    missing = {}
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        source = SOURCES.get(dataset)
        if dataset in FAMILIES or store.is_prepared(dataset, root) or (source is not None and source.automatic):
            continue
        if source is not None:
            missing[dataset] = source.how_to_prepare()
            continue
        try:  # a folder of one's own is prepared by loading it
            datasets.load(dataset, root)
        except (DataError, ConfigError) as error:
            missing[dataset] = str(error)
    return missing


def _planned(cell: Cell, trial: Trial | None, budget: Budget, missing: Mapping[str, str]) -> PlannedCell:
    problem = f"{cell.dataset} is not prepared" if cell.dataset in missing else ""
    if trial is None:
        return PlannedCell(cell, problem=problem)
    if "error" in trial:
        return PlannedCell(cell, problem=trial["error"])
    costs = Costs(**trial["costs"])
    length = {"max_epochs": trial["max_epochs"], "tasks_per_epoch": trial["tasks_per_epoch"]}
    options = {**cell.options, "training": {**cell.options["training"], **length}}
    epochs, tasks, extra = length_of(options)
    try:
        options = shortened(options, costs, budget)
    except ConfigError as error:
        return PlannedCell(cell, problem=str(error))
    final = Cell(**{**cell.plain(), "options": options})
    images = (epochs * tasks + extra) * trial["images_per_task"]
    return PlannedCell(final, images, costs.total(options), costs, problem)


def _tried(
    cell: Cell, folder: Path, *, root: Path | str | None, seconds: float, threads: int, say: Callable[[str], None]
) -> Trial | None:
    """What the trial of a training found, by a process of its own; seeds share it. None without one."""
    place = folder / f"{cell.entry}-{cell.training_key}-threads{threads}"
    out = place.with_suffix(".json")
    if out.exists():
        found: Trial = read_json(out)
        # a stand-in is tried again once the data is there, and an error may have been mended
        if "error" not in found and (found["on"] == "its data" or not store.is_prepared(cell.dataset, root)):
            return found
    if seconds == 0:
        return None
    say(f"trying   {cell.entry}, to know what it costs here")
    write_text(place.with_suffix(".yaml"), yaml.safe_dump(cell.plain(), sort_keys=False))
    words = [sys.executable, "-m", "kshot.studies.trial", str(place.with_suffix(".yaml")), str(out)]
    words += ["--seconds", str(seconds), *([] if root is None else ["--root", str(root)])]
    out.unlink(missing_ok=True)
    with open(place.with_suffix(".log"), "wb") as log:
        ended = subprocess.run(
            words,
            env=environment(threads),
            stdout=log,
            stderr=log,
            check=False,
            preexec_fn=partial(end_with_parent, signal.SIGKILL),  # a trial has nothing to save
        )
    if not out.exists():
        code = ended.returncode
        error = last_words(place.with_suffix(".log"))
        reason = "was killed, as happens if there is not enough memory" if code < 0 else f"failed ({error})"
        return {"error": f"the trial {reason}; see {place.with_suffix('.log')}"}
    return read_json(out)
