"""Tables and pictures: the numbers in them are those of the evaluations."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.evaluation.results import Evaluation, Protocol, compare, over_seeds
from kshot.recipes import Published
from kshot.report.published import published_for, row_of
from kshot.report.rows import Row
from kshot.report.tables import percent, seeds_line, table
from kshot.runs.config import read_config
from kshot.runs.pages import seed_groups
from kshot.runs.run import Run

HOW = {"adaptation", "own_adaptation"}  # fields of an evaluation, all others are of its protocol


def result(number: int, shots: int = 5, **changes) -> Evaluation:
    fields = {"dataset": "cifar-fs", "split": "test", "ways": 5, "queries": 15, "tasks": 50, "seed": 0}
    how = {"adaptation": "logistic-c=3.0"} | {name: changes.pop(name) for name in HOW & changes.keys()}
    protocol = Protocol(**(fields | {"shots": shots, "statistics": "running"} | changes))
    accuracies = np.random.default_rng(number).uniform(0.4, 0.9, 50)
    return Evaluation("mtl", protocol=protocol, values=accuracies, seconds=1.0, **how)


def test_percent():
    assert percent(0.769, 0.005) == "76.90 ± 0.50"
    assert percent(-0.012, 0.0034, signed=True) == "-1.20 ± 0.34"


@pytest.mark.parametrize("style", ["text", "markdown", "latex"])
def test_table_has_every_number_with_its_interval(style):
    first = Row("a", [result(0, 1), result(1, 5)], [None, Published("W21", "3", 84.1, 0.1, "")], seconds=61.2)
    second = Row("b", [result(2, 1), result(3, 5)])
    text = table([first, second], paired=True).render(style).replace(r"\(\pm\)", "±")
    for row in (first, second):
        for one in row.results:
            assert percent(one.mean, one.ci95) in text
    for mine, reference in zip(second.results, first.results):
        difference = compare(mine, reference)
        assert percent(difference.mean, difference.ci95, signed=True) in text
    assert "84.1 ± 0.1" in text
    assert "W21 table 3" in text
    assert "61 s" in text
    shape = "5 ways, 1 and 5 shots, 15 queries per class, 50 tasks of cifar-fs/test"
    assert f"{shape}, running statistics, task seed 0" in text


def test_csv_is_for_programs():
    rows = list(csv.DictReader(io.StringIO(table([Row("a", [result(0)]), Row("b", [result(1)])], paired=True).csv())))
    assert float(rows[1]["accuracy"]) == pytest.approx(result(1).mean, abs=1e-6)
    assert float(rows[1]["difference"]) == pytest.approx(result(1).mean - result(0).mean, abs=2e-6)


def test_table_refuses_results_of_different_tasks():
    with pytest.raises(ConfigError, match="different tasks"):
        table([Row("a", [result(0)]), Row("b", [result(0, seed=1)])], paired=True)
    with pytest.raises(ConfigError, match="no table style 'plain'"):
        table([Row("a", [result(0)])]).render("plain")
    with pytest.raises(ConfigError, match="different numbers of shots"):
        table([Row("a", [result(0)]), Row("b", [result(0, shots=1)])])


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_table_says_of_each_row_what_it_was_measured_on(style):
    others = [Row("b", [result(1, dataset="fc100", tasks=20)]), Row("c", [result(2, adaptation="ridge-penalty=1.0")])]
    text = table([Row("a", [result(0)]), *others]).render(style)
    assert "Protocol of a, c: 5 ways, 5 shots, 15 queries per class, 50 tasks of cifar-fs/test" in text
    assert "Protocol of b: 5 ways, 5 shots, 15 queries per class, 20 tasks of fc100/test" in text
    assert "Adaptation of a, b: logistic-c=3.0." in text
    assert "Adaptation of c: ridge-penalty=1.0." in text
    assert "\nAdaptation: logistic-c=3.0.\n" in table([Row("a", [result(0)])]).render(style)


@pytest.mark.parametrize(
    ("backbone", "split", "value"),
    [
        ({"name": "resnet12", "widths": [64, 160, 320, 640]}, "test", "84.1 ± 0.1"),
        ({"name": "resnet12", "widths": [64, 128, 256, 512]}, "test", "None"),
        ({"name": "resnet12"}, "val", "None"),
        ({"name": "conv4", "width": 64}, "test", "None"),
        ({"unregistered": "my.Network"}, "test", "None"),
    ],
)
def test_published_value_of_the_same_network_only(backbone, split, value):
    config = {"data": {"name": "cifar-fs"}, "backbone": backbone, "learner": {"name": "mtl"}}
    assert str(published_for(config, result(0, split=split))) == value
    assert published_for(config, result(0, split=split, own_adaptation=False)) is None


@pytest.mark.parametrize(
    ("options", "statistics", "value"),
    [
        ({}, "transductive", "72.75 ± 0.71"),
        ({}, "inductive", "68.91 ± 0.74"),
        ({"first_order": True}, "transductive", "66.96 ± 1.27"),
        ({"layers": "head"}, "transductive", "None"),
        ({"learn_rates": True}, "transductive", "None"),
    ],
)
def test_published_value_of_the_same_variant_and_statistics_only(options, statistics, value):
    config = {"data": {"name": "cifar-fs"}, "backbone": {"name": "conv4", "width": 32}}
    config["learner"] = {"name": "maml", "first_order": False, "layers": "all", "learn_rates": False} | options
    assert str(published_for(config, result(0, statistics=statistics))) == value


@pytest.mark.parametrize(
    ("dataset", "learner", "value"),
    [
        ("cifar-fs", {"name": "metaoptnet", "head": "ridge"}, "84.3 ± 0.5"),
        ("cifar-fs", {"name": "metaoptnet", "head": "svm"}, "None"),
        ("fc100", {"name": "metaoptnet", "head": "svm"}, "55.5 ± 0.6"),
        ("fc100", {"name": "metaoptnet", "head": "ridge"}, "None"),
        ("mini-imagenet", {"name": "metaoptnet"}, "78.63 ± 0.46"),
    ],
)
def test_published_value_of_metaoptnet_is_that_of_the_quoted_head(dataset, learner, value):
    config = {"data": {"name": dataset}, "backbone": {"name": "resnet12"}, "learner": learner}
    assert str(published_for(config, result(0, dataset=dataset))) == value


@pytest.mark.parametrize(
    ("learner", "value"),
    [
        ({"name": "tsa-maml"}, "73.52 ± 0.72"),
        ({"name": "tsa-maml", "layers": "head"}, "None"),
        ({"name": "tsa-maml", "learn_rates": True}, "None"),
        ({"name": "tsa-maml", "first_order": True}, "None"),
        ({"name": "hsml"}, "69.62 ± 1.01"),
        ({"name": "hsml", "first_order": True}, "None"),
    ],
)
def test_variants_of_learners_like_maml_have_no_published_value(learner, value):
    config = {"data": {"name": "cifar-fs"}, "backbone": {"name": "conv4", "width": 32}, "learner": learner}
    assert str(published_for(config, result(0, statistics="transductive"))) == value


@pytest.mark.parametrize(("options", "value"), [({}, "42.68 ± 0.96"), ({"scale": 10.0}, "None")])
def test_a_learnt_scale_of_matching_net_has_no_published_value(options, value):
    learner = {"name": "matching-net", **options}
    config = {"data": {"name": "cifar-fs"}, "backbone": {"name": "conv4", "width": 32}, "learner": learner}
    assert str(published_for(config, result(0, statistics="inductive"))) == value


def test_published_values_of_domains_stand_beside_the_accuracy_on_their_tasks():
    config = {"data": {"name": "group-car-bird-fungi"}, "backbone": {"name": "conv4", "width": 32}}
    config["learner"] = {"name": "maml"}
    domains = ["car", "bird", "fungi", "dogs"] * 12 + ["car"] * 2
    measured = replace(result(0, dataset="group-car-bird-fungi", statistics="transductive"), domains=domains)
    text = str(table([row_of("run", config, [measured])]))
    cars = measured.by_domain()["car"]
    assert f"car {percent(cars.mean, cars.ci95)} (14), published 47.67 ± 0.7," in text
    assert "(12), published 68.64 ± 0.82," in text
    assert text.count(", published") == 3, "none for dogs"
    assert "Published: Z21 table 1." in text


@pytest.fixture
def run_with(tmp_path):
    """A folder with nothing but a config.yaml, a name and the options of training that differ from the others'."""

    def run(name: str, learner: str = "mtl", **training) -> Path:
        options = {"seed": 0, "shots": 5, "max_epochs": 40, "schedule": "plateau", "device": "cpu", "progress": True}
        config = {"data": {"name": "cifar-fs"}, "backbone": {}, "learner": {"name": learner}}
        config["training"] = options | training
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
        return tmp_path / name

    return run


def groups_of(runs: Sequence[Path]) -> list[list[int]]:
    return seed_groups([Run(run).content() for run in runs])


def test_runs_that_differ_in_their_seed_alone_are_one_group(run_with):
    first, other = run_with("mtl"), run_with("protonet", learner="protonet")
    second, shots = run_with("mtl-1", seed=1), run_with("shots", seed=2, shots=1)
    assert groups_of([first, other, second, shots]) == [[0, 2]]
    assert groups_of([other, run_with("protonet-1", "protonet", seed=1), second, first]) == [[0, 1], [2, 3]]
    assert groups_of([first, other, shots]) == []


def test_what_a_continued_run_may_change_is_no_other_training(run_with):
    first, continued = run_with("a"), run_with("b", seed=1, max_epochs=60, device="auto", progress=False)
    assert groups_of([first, continued]) == [[0, 1]]
    cosine = [run_with(f"cosine-{epochs}", seed=epochs, schedule="cosine", max_epochs=epochs) for epochs in (40, 60)]
    assert groups_of(cosine) == [], "the rates of a cosine depend on the number of epochs"


def test_one_seed_given_twice_is_one_seed(run_with):
    first, second = run_with("a"), run_with("b", seed=1)
    assert groups_of([first, first]) == []
    assert groups_of([first, first.parent / "." / "a", second]) == [[0, 2]]
    assert groups_of([first, run_with("copy"), second]) == [[0, 2]]


def test_seeds_line_has_the_interval_over_trainings():
    rows = [Row(f"run-{number}", [result(number, 1), result(10 + number, 5)]) for number in range(3)]
    line = seeds_line(rows)
    assert line.startswith("Over 3 training seeds (run-0, run-1, run-2): 1-shot ")
    for position, shots in enumerate((1, 5)):
        assert f"{shots}-shot {percent(*over_seeds([row.results[position] for row in rows]))}" in line


def test_missing_and_damaged_run_folders(tmp_path):
    with pytest.raises(CheckpointError, match="no run folder"):
        read_config(tmp_path)
    with pytest.raises(DataError, match="there is no such file or folder"):
        Run(tmp_path).metrics()
    (tmp_path / "metrics.csv").write_text("epoch,accuracy\n")
    with pytest.raises(DataError, match="no epoch yet"):
        Run(tmp_path).metrics()
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(CheckpointError, match="damaged"):
        read_config(tmp_path)
