"""Recipes: YAML that reproduces the cells of published tables, with the published values.

A recipe holds the options of `kshot train` by the names of its sections (data, backbone, learner, training), and those
of `kshot tsa train` where it has a section of stages. A file may hold several that differ little: its ``cells`` map
names to the options of each, on top of the common ones, and the recipe ``CELL`` of ``FILE.yaml`` is called
``FILE-CELL``. ``published`` is a value as `Published` describes it, or a list of tables such as "Z21 table 2", whose
values are looked up.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from kshot.errors import ConfigError
from kshot.recipes.papers import (
    Published,
    backbone_in_papers,
    learner_in_papers,
    published,
    published_in,
    published_rows,
)

SECTIONS = ("data", "backbone", "learner", "training", "stages")

__all__ = [
    "Published",
    "Recipe",
    "backbone_in_papers",
    "learner_in_papers",
    "load",
    "names",
    "published",
    "published_rows",
]


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name: nested options by section, the published values, and its YAML with what its author says.

    A table has several values for one recipe where it has several kinds of statistics, or the domains of a mixture.
    """

    name: str
    options: dict[str, dict[str, Any]]
    published: tuple[Published, ...]
    text: str


def names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(_recipes())


def load(name: str) -> Recipe:
    """The recipe of this name; ConfigError, with the nearest name, where there is none."""
    if name not in _recipes():
        close = difflib.get_close_matches(name, names(), n=1)
        near = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"there is no recipe {name!r}; {near}kshot recipes lists them all")
    return _recipes()[name]


@cache
def _recipes() -> dict[str, Recipe]:
    folder = resources.files("kshot.recipes")
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    found = [
        recipe
        for file in files
        for recipe in recipes_of(file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8"))
    ]
    return {recipe.name: recipe for recipe in found}


def recipes_of(name: str, text: str) -> Iterator[Recipe]:
    """The recipe of a file, or those of its cells; ConfigError for a section that no recipe has."""
    common = yaml.safe_load(text)
    cells = common.pop("cells", None)
    if cells is None:
        yield _recipe(name, common, text)
        return
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    for cell, own in cells.items():
        content = _merged(common, own)
        yield _recipe(f"{name}-{cell}", content, comment + yaml.safe_dump(content, sort_keys=False))


def _recipe(name: str, content: Mapping[str, Any], text: str) -> Recipe:
    options = {section: value for section, value in content.items() if section != "published"}
    unknown = set(options) - set(SECTIONS)
    if unknown:
        raise ConfigError(f"recipe {name}: unknown section {', '.join(sorted(unknown))}; use {', '.join(SECTIONS)}")
    return Recipe(name, options, _values(content.get("published"), options), text)


def _values(entry: Any, options: Mapping[str, Mapping[str, Any]]) -> tuple[Published, ...]:
    """The published values that a recipe's entry writes out, or names the tables of."""
    if isinstance(entry, Mapping):
        return (Published(**entry),)
    if entry is None:
        return ()
    dataset, training = options["data"]["name"], options["training"]
    learner, backbone = learner_in_papers(options["learner"], dataset), backbone_in_papers(options["backbone"])
    if learner is None or backbone is None:
        return ()
    ways = training.get("validation_ways") or training["ways"]
    shots = training.get("validation_shots") or training["shots"]
    tables = [published_in(table, dataset, ways, shots, learner, backbone) for table in entry]
    return tuple(value for values in tables for value in values)


def _merged(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The common content with the entries of a cell in their sections."""
    merged = dict(common)
    for section, value in own.items():
        merged[section] = _merged(common.get(section, {}), value) if isinstance(value, Mapping) else value
    return merged
