"""The file of a study: YAML that says which trainings there are and what is measured of them, checked before any work.

    title: What the page is called
    description: A few sentences for the page.
    tables: [W21 table 3]           # every recipe with a value in these tables is a cell
    every_learner: cifar-fs         # every registered learner is a cell, by its recipe for this dataset if it has one
    data: [cifar-fs, glyphs]        # every cell on each of these; without it, on the recipe's own dataset
    seeds: [0, 1, 2]
    common: {validation_tasks: 50, backbone.width: 32}                # options of all cells
    cells:
      mtl: {recipe: mtl-cifar-fs-5shot}
      mtl-batch: {recipe: mtl-cifar-fs-5shot, options: {learner.normalize_over: batch}}
      sizes: {recipe: mtl-cifar-fs-5shot, grid: {meta_batch: [1, 2, 4]}}
    measure: {shots: [1, 5], queries: 15, tasks: 600}                 # the fields of `Measurement`
    budget: 10min-per-cell          # or full: what the recipes say
    reference: mtl                  # the row that the others are compared with; by default the first
    unknown: Why some published values are not given.

Options are called as on the command line: ``learner.head``, ``backbone.width``, and those of training without a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kshot import recipes
from kshot.errors import ConfigError, did_you_mean
from kshot.files import read_text
from kshot.runs.measurement import Measurement
from kshot.studies.budget import Budget

_LARGEST = 1 << 20  # bytes
_ENTRY = ("recipe", "options", "grid", "measure", "row")


@dataclass(frozen=True)
class Entry:
    """One line of a study: a recipe, or nothing but options, and what differs from it.

    Attributes
    ----------
    recipe
        Name of a recipe; None for options alone, with ``learner.name`` and ``data.name`` among them.
    options
        Options on top of the recipe, by dotted name.
    grid
        Options with several values each: one cell for each combination.
    measure
        What is measured of this entry alone, on top of what the study measures.
    row
        What its row is called in tables; None for the name of the entry.
    """

    recipe: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    row: str | None = None


@dataclass(frozen=True)
class StudyFile:
    """What the file of a study says, see the text of this module."""

    name: str
    title: str
    description: str = ""
    tables: Sequence[str] = ()
    every_learner: str | None = None
    data: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    common: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, Entry] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    budget: str = "full"
    reference: str | None = None
    unknown: str = ""


def names() -> list[str]:
    """The names of the studies that kshot ships, sorted."""
    return sorted(_shipped())


def load(study: str | Path) -> StudyFile:
    """A study by its name, or from its file.

    Raises
    ------
    ConfigError
        If there is none, or it says something that no study can; the message names the place.
    """
    path = Path(study)
    if str(study) in _shipped():
        return parse(str(study), _shipped()[str(study)])
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        near = did_you_mean(study, names())
        raise ConfigError(
            f"there is no study {str(study)!r}{near}; choose one of: {', '.join(names())}, or give a file that ends in "
            ".yaml"
        )
    try:
        text = read_text(path, limit=_LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the study {path} cannot be read ({error}); check the path") from error
    return parse(path.stem, text)


@cache
def _shipped() -> dict[str, str]:
    folder = resources.files("kshot.studies").joinpath("shipped")
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }


def parse(name: str, text: str) -> StudyFile:
    """The study that a text describes; ConfigError, with the place, for what no study says."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"study {name} is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"study {name} is nested too deeply") from None
    content = dict(_mapping(content, f"study {name}"))
    known = [each.name for each in fields(StudyFile) if each.name != "name"]
    _check_known(content, known, f"study {name}")
    given: dict[str, Any] = {"title": name} | content
    given = {key: value for key, value in given.items() if value is not None or key != "reference"}
    for key in ("title", "description", "unknown", "budget", "reference"):
        if not isinstance(given.get(key, ""), str):
            raise ConfigError(f"study {name}: {key} is {given[key]!r:.40}, but must be text")
    for key, kind in (("tables", str), ("data", str), ("seeds", int)):
        if key in given:
            given[key] = _list(given[key], kind, f"study {name}: {key}")
    for key in ("common", "measure", "cells"):
        given[key] = _part(given, key, f"study {name}")
    given["cells"] = {
        _entry_name(cell, name): _entry(entry, f"study {name}: cell {cell}") for cell, entry in given["cells"].items()
    }
    check_measure(given["measure"], f"study {name}")
    Budget.parse(given.get("budget", "full"))
    study = StudyFile(name=name, **given)
    if not (study.cells or study.tables or study.every_learner):
        raise ConfigError(f"study {name} has no cells; give it cells, tables or every_learner")
    if study.seeds != tuple(dict.fromkeys(study.seeds)):
        raise ConfigError(f"study {name}: seeds are {list(study.seeds)}; give each of them once")
    values = {value.source for recipe in map(recipes.load, recipes.names()) for value in recipe.published}
    for table in study.tables:
        if table not in values:
            raise ConfigError(f"study {name}: no recipe has a value of {table!r}{did_you_mean(table, values)}")
    return study


def check_measure(measure: Mapping[str, Any], place: str) -> None:
    """ConfigError unless a mapping has nothing but fields of `Measurement`, of the kinds that these have."""
    _check_known(measure, [each.name for each in fields(Measurement)], f"{place}: measure")
    shots = measure.get("shots", 5)
    counts = shots if isinstance(shots, list) else [shots]
    if not counts or any(type(count) is not int or count < 1 or counts.count(count) > 1 for count in counts):
        raise ConfigError(
            f"{place}: measure.shots is {shots!r:.40}, but must be a whole number of at least 1, or a list of "
            "different ones"
        )
    Measurement.of(dict(measure))  # type: ignore[arg-type]
    for key in ("ways", "queries", "tasks"):
        value = measure.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise ConfigError(f"{place}: measure.{key} is {value!r:.40}, but must be a whole number of at least 1")


def _entry(content: Any, place: str) -> Entry:
    content = _mapping(content, place)
    _check_known(content, _ENTRY, place)
    recipe = content.get("recipe")
    if recipe is not None and not isinstance(recipe, str):
        raise ConfigError(f"{place}: recipe is {recipe!r:.40}, but must be a name; kshot recipes lists them all")
    if not isinstance(content.get("row", ""), (str, type(None))):
        raise ConfigError(f"{place}: row is {content['row']!r:.40}, but must be text")
    parts = {key: _part(content, key, place) for key in ("options", "grid", "measure")}
    for option, values in parts["grid"].items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{place}: grid.{option} is {values!r:.40}, but must be a list of values")
    check_measure(parts["measure"], place)
    return Entry(recipe=recipe, row=content.get("row"), **parts)


def _entry_name(name: Any, study: str) -> str:
    """The name of an entry, which is part of the names of folders."""
    if not isinstance(name, str) or not name or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise ConfigError(f"study {study}: cell {name!r} must be called by letters, digits and - _ . alone")
    return name


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{place} is {value!r:.40}, but must be a mapping of names to values")
    return value


def _part(content: Mapping[str, Any], key: str, place: str) -> Mapping[str, Any]:
    """An entry that is a mapping; an empty one if it is left out, or has nothing behind its colon."""
    value = content.get(key)
    return {} if value is None else _mapping(value, f"{place}: {key}")


def _list(value: Any, kind: type, place: str) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(type(each) is kind for each in values):
        word = "whole numbers" if kind is int else "names"
        raise ConfigError(f"{place} is {value!r:.40}, but must be a list of {word}")
    return tuple(values)


def _check_known(content: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key in content:
        if key not in known:
            near = did_you_mean(key, known)
            raise ConfigError(f"{place} has no entry {key!r}{near}; it may have: {', '.join(known)}")
