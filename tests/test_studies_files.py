"""Studies before and after they run: their files, cells and budgets; the numbers that stand on their pages."""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
import yaml
from study_toys import COSTS, TINY

import kshot
from kshot.errors import ConfigError
from kshot.learners import learners
from kshot.recipes import Published, published_rows
from kshot.report.study_numbers import Column, Number, pairs_of, text_of, verdict_of
from kshot.studies import study_file
from kshot.studies.budget import Budget, Costs, length_of, shortened
from kshot.studies.cells import cells_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cells:", "cels:"), r"no entry 'cels' \(did you mean 'cells'\?\)"),
        (("recipe: mtl-cifar-fs-5shot-conv4", "recipe: mtl-cifr-fs"), "cell mtl: there is no recipe 'mtl-cifr-fs'"),
        (("{ways: 5}}\n  p", "{wys: 5}}\n  p"), r"cell mtl: .* no option 'wys' .*\(did you mean 'ways'\?\)"),
        (("{ways: 5}}\n  p", "{ways: five}}\n  p"), "cell mtl: .*ways"),
        (("{ways: 5}}\n  p", "{seed: 5}}\n  p"), "cell mtl: .*'seed'"),
        (("{ways: 5}}\n  p", "{learner.temper: 5}}\n  p"), "cell mtl: mtl has no option 'temper'"),
        (("{ways: 5}}\n  p", "{lerner.name: mtl}}\n  p"), "no section 'lerner'"),
        (("seeds: [0, 1]", "seeds: [0, 0]"), "each of them once"),
        (("seeds: [0, 1]", "seeds: [a]"), "list of whole numbers"),
        (("tasks: 12", "tasks: 12, shots: []"), r"measure\.shots is \[\]"),
        (("shots: [1, 5]", "shots: [0, 5]"), r"measure\.shots is \[0, 5\]"),
        (("shots: [1, 5]", "shots: true"), r"measure\.shots is True"),
        (
            ("title: A tiny study", "reference: mtll"),
            r"reference is 'mtll', .*\(did you mean 'mtl'\?\); its rows: mtl; p",
        ),
        (("backbone.width: 8", "backbone.width: 2020-01-01"), r"backbone\.width is datetime"),
        (("tasks: 12", "tusks: 12"), "measure has no entry 'tusks'"),
        (("tasks: 12", "tasks: 0"), r"measure\.tasks is 0"),
        (("title: A tiny study", "title: [1"), "is not YAML"),
        (("title: A tiny study", "tables: [W21 table 9]"), "no recipe has a value of 'W21 table 9'"),
        (("title: A tiny study", "budget: 10 minutes"), "write full for what the recipes say, or a time"),
        (("  protonet: {recipe: protonet", "  other: {recipe: mtl"), "mtl-seed0 and other-seed0 collide"),
        (("  protonet:", "  mtl/x:"), "letters, digits"),
        (("options: {ways: 5}}\n  p", "row: protonet}\n  p"), "mtl and protonet collide: both are the row 'protonet'"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused_with_the_place(change, message):
    assert change[0] in TINY
    with pytest.raises(ConfigError, match=message):
        cells_of(study_file.parse("tiny", TINY.replace(*change)))


WRONG: list[Any] = [
    0,
    -1,
    3.5,
    True,
    "",
    "x",
    [],
    [None],
    [[1]],
    {},
    {"x": 1},
    {1: 2},
    math.nan,
    date(2020, 1, 1),
    2**70,
]


def places_in(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        yield (*at, key)
        yield from places_in(value, (*at, key))


def test_whatever_stands_in_a_file_is_taken_or_refused():
    """Every entry with every kind of value: nothing but ConfigError, and no mapping is replaced by another nothing."""
    whole = yaml.safe_load(TINY) | {"reference": "mtl", "description": "", "unknown": "", "budget": "full"}
    whole["cells"]["mtl"] |= {"grid": {"shots": [1, 5]}, "measure": {"tasks": 12}, "row": "mtl"}
    for place in places_in(whole):
        for wrong in WRONG:
            content = copy.deepcopy(whole)
            parent = functools.reduce(operator.getitem, place[:-1], content)
            mapping = isinstance(parent[place[-1]], dict)
            parent[place[-1]] = wrong
            try:
                cells_of(study_file.parse("tiny", yaml.safe_dump(content)))
            except ConfigError:
                continue
            assert not mapping or wrong == {}, (place, wrong)


def test_a_reference_is_a_row_or_what_stands_before_its_comma():
    text = TINY.replace("options: {ways: 5}}\n  p", "grid: {ways: [3, 5]}}\n  p")
    for reference in ("mtl", "mtl, ways 5", "protonet"):
        assert cells_of(study_file.parse("tiny", f"{text}reference: {reference}"))


def test_seeds_are_given_once():
    for seeds in ([], [1, 1]):
        with pytest.raises(ConfigError, match="give at least one, and each of them once"):
            cells_of(study_file.parse("tiny", TINY), seeds=seeds)


def test_an_unknown_study_is_answered_by_the_nearest():
    with pytest.raises(ConfigError, match=r"no study 'w21-tabel3' \(did you mean 'w21-table3'\?\)"):
        kshot.Study("w21-tabel3")


def test_cells_are_entries_by_datasets_by_grid_by_seeds():
    text = TINY.replace("data: [tiny]", "data: [tiny, glyphs]").replace(
        "options: {ways: 5}}\n  p", "grid: {ways: [3, 5], learner.normalize_over: [task]}}\n  p"
    )
    cells = cells_of(study_file.parse("tiny", text))
    assert len(cells) == 2 * (2 * 2 + 2)
    assert "mtl-tiny-ways3-normalize_overtask-seed0" in {cell.name for cell in cells}
    first = cells[0]
    assert first.options["training"]["ways"] == 3
    assert first.options["backbone"] | {"width": 8} == first.options["backbone"]
    assert first.options["data"] == {"name": "tiny"}
    assert len({(cell.training_key, cell.seed) for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", study_file.names())
def test_shipped_studies_are_complete(name):
    study = study_file.load(name)
    cells = cells_of(study, seeds=[0])
    if study.every_learner:
        trained = {cell.options["learner"]["name"] for cell in cells}
        assert trained == set(learners)
    if study.tables and not study.data:
        wanted = {
            (row["dataset"].split("/")[0], row["learner"], row["backbone"], row["ways"], row["shots"])
            for row in published_rows()
            if f"{row['paper']} {'text' if row['table'] == 'text' else 'table ' + row['table']}" in study.tables
        }
        shown = {
            (cell.dataset, *cell.row.split(", ")[:2], str(cell.measure["ways"]), str(cell.measure["shots"][0]))
            for cell in cells
        }
        assert wanted == shown


def test_variants_of_a_recipe_have_rows_of_their_own():
    rows = {cell.entry: cell.row for cell in cells_of(study_file.load("w21-table3"), seeds=[0], data=["cifar-fs"])}
    assert rows["maml-cifar-fs-5way-1shot"] == "maml, conv4-32"
    assert rows["maml-cifar-fs-flatten-5way-1shot"] == "maml, conv4-32, flatten"
    assert rows["mtl-cifar-fs-5shot-cpu"] == "mtl, resnet12, cpu"


def test_a_budget_becomes_a_number_of_tasks():
    """10 min of 0.1 s per task, less a start of 1 s and ten validations of 4 s."""
    cell = cells_of(study_file.load("all-learners"), seeds=[0], data=["glyphs"])
    options = next(each for each in cell if each.options["learner"]["name"] == "tadam").options
    costs, budget = Costs(**COSTS | {"validation": 0.08}), Budget.parse("10min-per-cell")
    whole = length_of(options)
    short = shortened(options, costs, budget)
    epochs, tasks, _ = length_of(short)
    assert (epochs, tasks) == (10, (600 - 1 - 10 * 50 * 0.08) / 0.1 // 10)
    assert short["training"]["schedule"] == "cosine"
    ratio = epochs * tasks / (whole[0] * whole[1])
    assert short["learner"]["cotraining_tasks"] == pytest.approx(20_000 * ratio, rel=0.01)
    assert costs.training(short) == pytest.approx(600, abs=1)
    assert shortened(options, costs, Budget.parse("9000h-per-cell")) == options
    with pytest.raises(ConfigError, match="too short"):
        shortened(options, costs, Budget.parse("2s-per-cell"))


@pytest.mark.parametrize(("validation", "tasks"), [(0.02, 50), (0.08, 15), (0.3, 10), (0.0, 50)])
def test_validation_takes_a_fifth_of_a_budget_at_most(validation: float, tasks: int) -> None:
    """A minute, ten validations of 50 tasks: 12 s are 150 tasks of 0.08 s; ten tasks each time there must be."""
    cell = cells_of(study_file.load("all-learners"), seeds=[0], data=["glyphs"])
    options = next(each for each in cell if each.options["learner"]["name"] == "reptile").options
    costs = Costs(**COSTS | {"validation": validation})
    short = shortened(options, costs, Budget.parse("1min-per-cell"))
    assert short["training"]["validation_tasks"] == tasks
    assert costs.training(short) == pytest.approx(60, abs=1.5)


def test_numbers_and_their_published_values():
    tasks = np.array([0.2, 0.4, 0.6, 0.8])
    one = Number({0: tasks, 1: tasks + 0.1}, "d", Published("Z21", "2", 60.0, 1.0, ""))
    assert text_of(one) == "55.00 ± 41.09 (± 63.53)"  # Student's t, 3 and 1 degrees of freedom
    assert verdict_of(one) == "-5.00, intervals meet"
    narrow = replace(one, values={0: np.full(4, 0.5)})
    assert verdict_of(narrow) == "-10.00, intervals do not meet"
    assert verdict_of(replace(one, published=Published("Z21", "2", 60.0, None, ""))) == "-5.00"
    assert verdict_of(replace(one, published=None)) == ""


def test_pairs_are_of_equal_tasks_and_corrected_together():
    generator = np.random.default_rng(0)
    hard = generator.normal(0.5, 0.1, 50)
    numbers = {
        "a": Number({0: hard}, "d"),
        "b": Number({0: hard + generator.normal(0.05, 0.02, 50)}, "d"),
        "c": Number({0: hard + generator.normal(0.004, 0.02, 50)}, "d"),
        "other tasks": Number({0: hard}, "e"),
    }
    pairs = {(pair.first, pair.second): pair for pair in pairs_of(Column("x", 5, 1), numbers)}
    assert set(pairs) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert pairs["a", "b"].significant
    assert pairs["a", "b"].difference < 0
    smallest, middle, largest = sorted(pair.p for pair in pairs.values())
    assert sorted(pair.corrected for pair in pairs.values()) == pytest.approx(
        [3 * smallest, max(3 * smallest, 2 * middle), max(2 * middle, largest)]
    )
