"""Recipes: YAML that reproduces the cells of published tables, with the published values.

A recipe holds the options of `kshot train` by the names of its sections (data, backbone, learner, training), and those
of `kshot tsa train` if it has a section of stages. A file may hold several recipes that differ little: its ``cells``
map names to the options of each, on top of the common ones, and the recipe ``CELL`` of ``FILE.yaml`` is called
``FILE-CELL``. ``published`` is a value as `Published` describes it, or a list of tables such as "Z21 table 2", whose
values are looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import yaml

from kshot.errors import ConfigError, did_you_mean
from kshot.recipes.papers import (
    Published,
    backbone_in_papers,
    learner_in_papers,
    published,
    published_in,
    published_rows,
)

if TYPE_CHECKING:
    from importlib.abc import Traversable

SECTIONS = ("data", "backbone", "learner", "training", "stages")
_REQUIRED = ("data", "backbone", "learner")  # each with a name

__all__ = [
    "Published",
    "Recipe",
    "backbone_in_papers",
    "damaged",
    "learner_in_papers",
    "load",
    "names",
    "published",
    "published_in",
    "published_rows",
]


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes
    ----------
    name
        What `kshot train --recipe` takes.
    options
        Options by section and name.
    published
        The published values; several if a table has several kinds of statistics, or the domains of a mixture.
    text
        The YAML, with what its author says.
    """

    name: str
    options: dict[str, dict[str, Any]]
    published: tuple[Published, ...]
    text: str


def names() -> list[str]:
    """The names of all recipes that can be read, sorted."""
    return sorted(_shipped()[0])


def damaged() -> dict[str, str]:
    """What is wrong with each recipe file that cannot be read, by the name of the file without its ending."""
    return dict(_shipped()[1])


def load(name: str) -> Recipe:
    """The recipe of this name.

    Parameters
    ----------
    name
        As `kshot recipes` lists it.

    Raises
    ------
    ConfigError
        If there is none, with the nearest name; or if the file that would hold it is damaged, with what is wrong.
    """
    known, wrong = _shipped()
    if name in known:
        return known[name]
    for file, error in wrong.items():
        if name == file or name.startswith(f"{file}-"):
            raise ConfigError(error)
    raise ConfigError(f"there is no recipe {name!r}{did_you_mean(name, known)}; kshot recipes lists them all")


@cache
def _shipped() -> tuple[dict[str, Recipe], dict[str, str]]:
    return read_folder(resources.files("kshot.recipes"))


def read_folder(folder: Traversable) -> tuple[dict[str, Recipe], dict[str, str]]:
    """The recipes of a folder by their names, and what is wrong with each damaged file by its name without ending."""
    known: dict[str, Recipe] = {}
    wrong: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            name = file.name.removesuffix(".yaml")
            try:
                known |= {recipe.name: recipe for recipe in recipes_of(name, file.read_text(encoding="utf-8"))}
            except (ConfigError, OSError, UnicodeDecodeError) as error:
                wrong[name] = str(error) if isinstance(error, ConfigError) else f"recipe {name}: {error}"
    return known, wrong


def recipes_of(name: str, text: str) -> Iterator[Recipe]:
    """The recipe of a file, or those of its cells.

    Parameters
    ----------
    name
        The name of the file without its ending.
    text
        What the file holds.

    Raises
    ------
    ConfigError
        If the text is not YAML, or not what a recipe has; the message names the recipe and what is wrong with it.
    """
    try:
        common = _mapping(yaml.safe_load(text), f"recipe {name}")
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {name} is not YAML: {' '.join(str(error).split())}") from error
    cells = common.pop("cells", None)
    if cells is None:
        yield _recipe(name, common, text)
        return
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    for cell, changes in _mapping(cells, f"recipe {name}: cells").items():
        content = _merged(common, _mapping(changes, f"recipe {name}: cell {cell}"))
        yield _recipe(f"{name}-{cell}", content, comment + yaml.safe_dump(content, sort_keys=False))


def _recipe(name: str, content: Mapping[str, Any], text: str) -> Recipe:
    options = {section: value for section, value in content.items() if section != "published"}
    unknown = [str(section) for section in options if section not in SECTIONS]
    if unknown:
        raise ConfigError(f"recipe {name}: unknown section {', '.join(sorted(unknown))}; use {', '.join(SECTIONS)}")
    for section, value in options.items():
        _mapping(value, f"recipe {name}: section {section}")
    lacking = [section for section in _REQUIRED if not isinstance(options.get(section, {}).get("name"), str)]
    if lacking:
        raise ConfigError(f"recipe {name}: no name in section {', '.join(lacking)}; say what to train, and on what")
    try:
        values = _values(content.get("published"), options)
        _ = [str(value) for value in values]  # which fails for what is no number
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"recipe {name}: published is wrong ({error}); write a list of tables, or a value with its paper, table, "
            "accuracy, ci95 and protocol"
        ) from error
    return Recipe(name, options, values, text)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    """The value itself; ConfigError if it is no mapping."""
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is {value!r:.40}, but must be a mapping of names to values")
    return value


def _values(entry: Any, options: Mapping[str, Mapping[str, Any]]) -> tuple[Published, ...]:
    """The published values that a recipe's entry writes out, or names the tables of."""
    if isinstance(entry, Mapping):
        return (Published(**entry),)
    if entry is None:
        return ()
    if not isinstance(entry, list):
        raise TypeError(f"it is {entry!r:.40}")
    dataset, training = options["data"]["name"], options["training"]
    learner, backbone = learner_in_papers(options["learner"], dataset), backbone_in_papers(options["backbone"])
    if learner is None or backbone is None:
        return ()
    ways = training.get("validation_ways") or training["ways"]
    shots = training.get("validation_shots") or training["shots"]
    cell: Any = {"ways": ways, "shots": shots, "learner": learner, "backbone": backbone}
    tables = [published_in(table, dataset, **cell) for table in entry]
    return tuple(value for values in tables for value in values)


def _merged(common: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The common content with the entries of a cell in their sections."""
    merged = dict(common)
    for section, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(common.get(section, {}), Mapping)
        merged[section] = _merged(common.get(section, {}), value) if both else value
    return merged
