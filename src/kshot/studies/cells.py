"""The cells of a study: every entry with its datasets, the values of its grid and seeds, checked before any work."""

from __future__ import annotations

import copy
import hashlib
import inspect
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from kshot import recipes
from kshot.backbones import backbones
from kshot.data.regression import FAMILIES
from kshot.errors import ConfigError, KshotError, did_you_mean
from kshot.learners import TSAMAML, learners
from kshot.learners.create import FROM_DATA
from kshot.recipes import Recipe, learner_in_papers
from kshot.runs.measurement import Measurement
from kshot.studies.study_file import Entry, StudyFile
from kshot.training.options import TrainingOptions
from kshot.tsa.stages import Stages

Options = dict[str, dict[str, Any]]

_SECTIONS = ("data", "backbone", "learner", "training", "stages")
_NAMED = ("data", "backbone", "learner")


@dataclass(frozen=True)
class Cell:
    """One training of a study, and what is measured of it.

    Attributes
    ----------
    entry
        The entry of the study that it comes from, with dataset and values of the grid in its name if there are several.
    seed
        Of the training.
    recipe
        The recipe's name; None without one.
    row
        What tables call its row.
    options
        All options by section and name: data, backbone, learner, training and, for TSA-MAML, stages.
    measure
        The fields of `Measurement` that differ from its defaults.
    """

    entry: str
    seed: int
    recipe: str | None
    row: str
    options: Options
    measure: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the cell and its folder are called."""
        return f"{self.entry}-seed{self.seed}"

    @property
    def dataset(self) -> str:
        """What the cell trains on."""
        return str(self.options["data"]["name"])

    def plain(self) -> dict[str, Any]:
        """The cell as its file holds it."""
        return {each.name: copy.deepcopy(getattr(self, each.name)) for each in fields(self)}

    @property
    def training_key(self) -> str:
        """What identifies the training, whatever its seed and name: cells that share it cost the same."""
        text = json.dumps([self.options, dict(self.measure)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def cells_of(study: StudyFile, *, seeds: Sequence[int] | None = None, data: Sequence[str] | None = None) -> list[Cell]:
    """All cells of a study, in the order of its file.

    Parameters
    ----------
    study
        The file.
    seeds
        Other training seeds than those of the file.
    data
        The datasets whose cells are wanted; None for all.

    Raises
    ------
    ConfigError
        For an unknown recipe, option or value, and for cells that collide; the message names the cell.
    """
    seeds = study.seeds if seeds is None else seeds
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"study {study.name}: seeds are {list(seeds)}; give at least one, and each of them once")
    cells: list[Cell] = []
    for name, entry in _entries(study).items():
        try:
            for variant in _variants(name, entry, study):
                cells += [replace(variant, seed=seed) for seed in seeds]
        except KshotError as error:
            raise ConfigError(f"study {study.name}: cell {name}: {error}") from error
    _check_reference(study, {cell.row for cell in cells})
    if data is not None:
        present = {cell.dataset for cell in cells}
        for dataset in data:
            if dataset not in present:
                raise ConfigError(
                    f"study {study.name} has no cell on {dataset!r}{did_you_mean(dataset, present)}; it has cells on "
                    f"{', '.join(sorted(present))}"
                )
        cells = [cell for cell in cells if cell.dataset in data]
    _refuse_collisions(study, cells)
    return cells


def _entries(study: StudyFile) -> dict[str, Entry]:
    """The entries that tables and the registry of learners bring, and those of the file, which replace them by name."""
    entries: dict[str, Entry] = {}
    shipped = [recipes.load(name) for name in recipes.names()]
    for table in study.tables:
        for recipe in shipped:
            if _is_in(table, recipe):
                entries[recipe.name] = Entry(recipe=recipe.name, row=_row(recipe, shipped))
    if study.every_learner is not None:
        for learner in learners:
            nearest = _recipe_of(learner, shipped, study.every_learner)
            named = {"learner.name": learner, "backbone.name": "conv4", "data.name": study.every_learner}
            entries[learner] = Entry(recipe=nearest) if nearest else Entry(options=named)
    return entries | dict(study.cells)


def _row(recipe: Recipe, shipped: Sequence[Recipe]) -> str:
    """Learner and backbone of a recipe, and of several for the same cell of a table what tells the later ones apart."""
    row, words = ", ".join(_names_in_papers(recipe)), recipe.name.split("-")
    first = next(each for each in shipped if _place_in_tables(each) == _place_in_tables(recipe))
    return ", ".join([row, *(word for word in words if word not in first.name.split("-"))])


def _place_in_tables(recipe: Recipe) -> tuple[Any, ...]:
    """What the papers' tables tell apart."""
    return (recipe.options["data"]["name"], *_names_in_papers(recipe), _shape(recipe.options))


def _is_in(table: str, recipe: Recipe) -> bool:
    """Whether a table has a value of a recipe's own learner, backbone and tasks: a recipe may name others beside."""
    dataset, shape = recipe.options["data"]["name"], _shape(recipe.options)
    learner, backbone = _names_in_papers(recipe)
    cell = {"ways": shape.get("ways", 5), "shots": shape["shots"][0], "learner": learner, "backbone": backbone}
    return bool(recipes.published_in(table, dataset, **cell))


def _names_in_papers(recipe: Recipe) -> tuple[str, str]:
    """What papers call learner and backbone of a recipe; their own names if no paper has them."""
    learner = learner_in_papers(recipe.options["learner"], recipe.options["data"]["name"])
    backbone = recipes.backbone_in_papers(recipe.options["backbone"])
    return learner or recipe.options["learner"]["name"], backbone or recipe.options["backbone"]["name"]


def _recipe_of(learner: str, shipped: Sequence[Recipe], dataset: str) -> str | None:
    """The recipe that trains a learner as it is usually meant: on this dataset, by Conv4, on 5-way 5-shot tasks."""

    def fit(recipe: Recipe) -> tuple[bool, ...]:
        training, named = recipe.options.get("training", {}), recipe.options
        return (
            named["data"]["name"] == dataset,
            learner_in_papers(named["learner"], dataset) == learner,  # and no variant of it
            named["backbone"]["name"] == "conv4",
            training.get("validation_ways", training.get("ways", 5)) in (5, 20),
            training.get("validation_shots", training.get("shots", 5)) == 5,
        )

    mine = [
        recipe
        for recipe in shipped
        if recipe.options["learner"]["name"] == learner and recipe.options["data"]["name"] not in FAMILIES
    ]
    return max(mine, key=fit).name if mine else None  # of equal ones the first


def _variants(name: str, entry: Entry, study: StudyFile) -> Iterator[Cell]:
    """The cells of an entry, without their seeds: one for each dataset and combination of the grid."""
    recipe = recipes.load(entry.recipe) if entry.recipe is not None else None
    start: Options = copy.deepcopy(recipe.options) if recipe is not None else {}
    for section in ("data", "backbone", "learner", "training"):
        start.setdefault(section, {})
    datasets: Sequence[str | None] = study.data or [None]
    for dataset in datasets:
        for values in itertools.product(*entry.grid.values()):
            point = dict(zip(entry.grid, values))
            options = copy.deepcopy(start)
            on_top = [*study.common.items(), *entry.options.items(), *point.items()]
            # names first: options of a part mean nothing to the one that takes its place
            for key, value in sorted(on_top, key=lambda item: not item[0].endswith(".name")):
                _put(options, key, value)
            if dataset is not None:
                options["data"] = {"name": dataset}
            check_options(options)
            parts = [name, *([dataset] if dataset is not None and len(study.data) > 1 else [])]
            parts += [f"{key.rpartition('.')[2]}{value}" for key, value in point.items()]
            measure = _shape(options) | dict(study.measure) | dict(entry.measure)
            row = ", ".join([entry.row or name, *(f"{key} {value}" for key, value in point.items())])
            yield Cell("-".join(parts), 0, entry.recipe, row, options, measure)


def _put(options: Options, key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    section = section or "training"
    if section not in _SECTIONS:
        raise ConfigError(f"there is no section {section!r} of {key!r}{did_you_mean(section, _SECTIONS)}")
    try:
        json.dumps(value)
    except TypeError as error:  # a date, for instance, which YAML has and no option
        raise ConfigError(f"{key} is {value!r:.40}, but must be a number, text, true, false, null or a list") from error
    if name == "name" and section in ("backbone", "learner") and options[section].get("name") != value:
        options[section] = {}
    options.setdefault(section, {})[name] = value


def _shape(options: Options) -> dict[str, Any]:
    """The ways and shots that a recipe is for: those of its validation."""
    training = options["training"]
    ways = training.get("validation_ways") or training.get("ways")
    shots = training.get("validation_shots") or training.get("shots", 5)
    return {"shots": [shots]} | ({"ways": ways} if ways is not None else {})


def check_options(options: Options) -> None:
    """ConfigError for a part that is not registered, and for an option that its part does not have."""
    for section in _NAMED:
        if not isinstance(options[section].get("name"), str):
            raise ConfigError(f"{section}.name is missing; name a recipe, or give it among the options")
    learner, backbone = options["learner"]["name"], options["backbone"]["name"]
    staged = issubclass(learners[learner], TSAMAML)
    if staged:
        options.setdefault("stages", Stages().plain())
    known = {
        "data": {"name"},
        "backbone": {"name", *inspect.signature(backbones[backbone]).parameters} - FROM_DATA,
        "learner": {"name", *inspect.signature(learners[learner]).parameters} - FROM_DATA,
        "training": {each.name for each in fields(TrainingOptions)} - {"seed", "progress", "device", "time_limit"},
        "stages": {each.name for each in fields(Stages)} - {"pretrained"} if staged else set(),
    }
    if not staged:
        options.pop("stages", None)
    for section, content in options.items():
        for key in content:
            if key not in known[section] and not (section == "stages" and content[key] is None):
                of = options[section].get("name", section)
                raise ConfigError(
                    f"{of} has no option {key!r} that a study may set{did_you_mean(key, known[section])}; it has: "
                    f"{', '.join(sorted(known[section]))}"
                )
    TrainingOptions.of(options["training"])


def is_reference(row: str, reference: str) -> bool:
    """Whether a row is meant by the `reference` of a study: its name, with or without what comes behind a comma."""
    return row == reference or row.startswith(f"{reference}, ")


def _check_reference(study: StudyFile, rows: Collection[str]) -> None:
    if study.reference is not None and not any(is_reference(row, study.reference) for row in rows):
        raise ConfigError(
            f"study {study.name}: reference is {study.reference!r}, but no row is called so"
            f"{did_you_mean(study.reference, rows)}; its rows: {'; '.join(sorted(rows))}"
        )


def _refuse_collisions(study: StudyFile, cells: Sequence[Cell]) -> None:
    """ConfigError if two cells would write one folder, are the same training, or would share a place of the table."""
    names: set[str] = set()
    trainings: dict[tuple[int, str], str] = {}
    places: dict[tuple[Any, ...], str] = {}
    for cell in cells:
        if cell.name in names:
            raise ConfigError(f"study {study.name}: two cells are called {cell.name}; rename one of them")
        names.add(cell.name)
        key = (cell.seed, cell.training_key)
        if key in trainings:
            raise ConfigError(
                f"study {study.name}: the cells {trainings[key]} and {cell.name} collide: they are the same training; "
                "leave one of them out"
            )
        trainings[key] = cell.name
        for place in _places(cell):
            if places.setdefault(place, cell.entry) != cell.entry:
                raise ConfigError(
                    f"study {study.name}: the cells {places[place]} and {cell.entry} collide: both are the row "
                    f"{cell.row!r} of the table of {cell.dataset}; give one of them another row"
                )


def _places(cell: Cell) -> Iterator[tuple[Any, ...]]:
    """Where the numbers of a cell stand: dataset, row and kind of tasks."""
    measurement, _ = Measurement.of(dict(cell.measure))  # type: ignore[arg-type]
    for shots in measurement.shots:
        yield cell.dataset, cell.row, measurement.ways, shots
