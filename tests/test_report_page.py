"""The page about runs: which of them share a table, what it says of the others, and that names stay names."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from report_toys import HOSTILE_NAMES, config, content, evaluation

from kshot.errors import ConfigError, DataError
from kshot.measures import SQUARED_ERROR
from kshot.report.explanation import why_training_is_lower
from kshot.report.page import page
from kshot.report.rows import Row
from kshot.report.tables import table


class Page(HTMLParser):
    """What a page holds: its tables as lists of rows, its remarks and headings, the names of its tags, all its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.texts: dict[str, list[str]] = {"h2": [], "remark": [], "figcaption": [], "summary": [], "notes": []}
        self.tags: set[str] = set()
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        kind = dict(attributes).get("class") or tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td") or kind in self.texts:
            self._into = self.tables[-1][-1] if tag in ("th", "td") else self.texts[kind]
            self._into.append("")

    def handle_endtag(self, tag):
        self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def test_runs_on_the_same_tasks_share_one_table_with_differences():
    shown = Page(page([content("first"), content("second", 1)]))
    results, times = shown.tables
    assert [line[0] for line in results] == ["run", "first", "second"]
    assert results[0][2] == "5-shot, minus first"
    assert results[2][2].startswith(("+", "-"))
    assert times[0][1] == "ms per image"
    assert shown.texts["remark"] == []
    assert shown.texts["h2"] == ["Training", "Time", "Configuration"]


def test_runs_on_different_datasets_get_a_table_each_and_no_advice_to_compare_them():
    other = content("other", config=config("fc100"), evaluations=[evaluation(1, dataset="fc100")])
    shown = Page(page([content("first"), other, content("second", 2)]))
    assert [[line[0] for line in rows[1:]] for rows in shown.tables[:2]] == [["first", "second"], ["other"]]
    (remark,) = shown.texts["remark"]
    assert "different datasets (cifar-fs, fc100)" in remark
    assert "kshot compare" not in remark
    assert shown.texts["h2"][:2] == [
        "5 ways, 5 shots, 15 queries per class, 50 tasks of cifar-fs/test",
        "5 ways, 5 shots, 15 queries per class, 50 tasks of fc100/test",
    ]
    assert len(shown.texts["figcaption"]) == 3, "every run keeps its curve"
    assert shown.texts["summary"] == ["first", "other", "second"]


def test_runs_on_different_tasks_of_one_dataset_are_shown_and_can_be_compared_by_a_command():
    both = [evaluation(0), evaluation(0, tasks=80)]
    runs = [content("a", evaluations=both), content("b"), content("with space", evaluations=[evaluation(1, tasks=80)])]
    shown = Page(page(runs))
    assert [[line[0] for line in rows[1:]] for rows in shown.tables[:2]] == [["a", "with space"], ["a", "b"]]
    (remark,) = shown.texts["remark"]
    assert remark.endswith("run: kshot compare runs/a runs/b 'runs/with space'")


def test_a_run_without_an_evaluation_is_named_and_the_others_are_shown():
    shown = Page(page([content("first"), content("new", evaluations=[], metrics=None, timing=None)]))
    assert [line[0] for line in shown.tables[0]] == ["run", "first"]
    assert shown.texts["remark"] == ["new has no evaluation of its present weights; run: kshot evaluate runs/new"]
    with pytest.raises(DataError, match="runs/new: no evaluation to show; run: kshot evaluate runs/new"):
        page([content("new", evaluations=[])])


def test_classification_and_regression_stand_in_separate_tables():
    error = evaluation(1, dataset="sinusoids", ways=1, measured={"measure": SQUARED_ERROR, "values": np.ones(50)})
    shown = Page(page([content("first"), content("waves", config=config("sinusoids"), evaluations=[error])]))
    assert len([rows for rows in shown.tables if rows[0][1].startswith("5-shot")]) == 2


def test_a_run_without_one_kind_of_statistics_at_all_shots_shares_what_it_has():
    one = [evaluation(0, shots=shots, statistics=kind) for shots, kind in ((1, "running"), (5, "inductive"))]
    two = [evaluation(1, shots=shots, statistics="inductive") for shots in (1, 5)]
    shown = Page(page([content("one", evaluations=one), content("two", evaluations=two)]))
    assert [line[0] for line in shown.tables[0]] == ["run", "one, inductive", "two, inductive"]


def test_runs_that_differ_in_their_seed_alone_have_a_line_per_kind_of_statistics():
    runs = [
        content(f"seed-{n}", evaluations=[evaluation(n, statistics=kind) for kind in ("transductive", "inductive")])
        for n in range(3)
    ]
    lines = [line for line in Page(page(runs, seed_groups=[[0, 2]])).texts["notes"] if line.startswith("Over")]
    kinds = ("transductive", "inductive")
    starts = [f"Over 2 training seeds (seed-0, {kind}, seed-2, {kind}): 5-shot " for kind in kinds]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True, True]


def test_runs_of_one_name_are_called_by_their_paths():
    twins = [replace(content("seed"), path_text=path) for path in ("a/seed", "b/seed")] + [content("other")]
    assert [line[0] for line in Page(page(twins)).tables[0]] == ["run", "a/seed", "b/seed", "other"]


def test_names_stay_text_in_the_page():
    runs = [content(name, number) for number, name in enumerate(HOSTILE_NAMES)]
    text = page(runs)
    text.encode()
    plain, hostile = Page(page([content(f"run-{n}", n) for n in range(2)])), Page(text)
    assert hostile.tags == plain.tags
    assert [line[0] for line in hostile.tables[0][1:]][1] == HOSTILE_NAMES[1]
    assert "{{ 7 * 7 }}{% raw %}" in [line[0] for line in hostile.tables[0]]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_stay_text_in_tables(name):
    made = table([Row(name, [evaluation(0)]), Row("other", [evaluation(1)])], paired=True)
    (first, _) = csv.DictReader(io.StringIO(made.csv()))
    assert not first["name"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert first["name"].isprintable()
    for text in (str(made), made.markdown(), made.latex(), made._repr_html_()):
        assert all(line.isprintable() for line in text.split("\n"))
    body = made.markdown().split("\n\n")[0].splitlines()
    assert len(body) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {4}
    html = made._repr_html_()
    ElementTree.fromstring(f"<div>{html.replace('<br>', '<br/>')}</div>")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", " =", "\t=", "\r="])
def test_text_cells_of_csv_are_no_formulas_and_numbers_stay_numbers(start):
    odd = evaluation(0, measured={"adaptation": f"{start}cmd()"})
    made = table([Row("better", [evaluation(1)]), Row(f"{start}1+1", [odd])], paired=True)
    second = list(csv.DictReader(io.StringIO(made.csv())))[1]
    for cell in (second["name"], second["adaptation"]):
        assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert float(second["difference"]) == pytest.approx(evaluation(0).mean - evaluation(1).mean, abs=1e-6)
    lower = table(
        [Row("a", [evaluation(1)]), Row("b", [evaluation(0, measured={"values": np.zeros(50)})])], paired=True
    )
    assert list(csv.DictReader(io.StringIO(lower.csv())))[1]["difference"].startswith("-0.")


def test_a_table_is_readable_in_a_notebook_and_refuses_what_cannot_be_paired():
    rows = [Row("first", [evaluation(0)]), Row("second", [evaluation(1)])]
    assert str(table(rows)) == repr(table(rows)) == table(rows).render()
    assert repr(rows[0]).startswith("Row('first': 5-shot 6")
    assert "<th>" in table(rows)._repr_html_() or "<th " in table(rows)._repr_html_()
    with pytest.raises(ConfigError, match=r"the rows first and odd cannot be paired: .* different tasks .*seed"):
        table([rows[0], Row("odd", [evaluation(0, seed=1)])], paired=True)
    for empty in ([], [Row("first", [])]):
        with pytest.raises(ConfigError, match="at least one"):
            table(empty)


@pytest.mark.parametrize(
    ("options", "backbone", "reason"),
    [
        ({"ways": 20}, {}, "tasks have 20 ways in training, 5 in validation"),
        ({"shots": 1, "validation_shots": 5}, {}, "tasks have 1 shot in training, 5 in validation"),
        ({"augment": True}, {}, "training images are augmented"),
        ({}, {"drop_rate": 0.1}, "dropout is active in training alone"),
        ({}, {"drop_rates": [0.0, 0.1]}, "dropout is active in training alone"),
        ({}, {}, None),
    ],
)
def test_lower_training_accuracy_is_explained_by_the_configuration(options, backbone, reason):
    easy = {"ways": 5, "shots": 5, "validation_ways": 5, "augment": False}
    run = content("run", config=config(**easy | options))
    sections = {"backbone": run.config["backbone"] | backbone, "learner": {"name": "protonet"}}
    run = replace(run, config=run.config | sections)
    text = why_training_is_lower(run)
    reasons = text.partition("because ")[2].split("; ")
    assert reasons[:-1] == ([reason] if reason else [])
    assert "average over the epoch" in reasons[-1]
    higher = replace(run, metrics={**run.metrics, "accuracy": run.metrics["validation_accuracy"] + 0.1})
    assert why_training_is_lower(higher) == ""
    supervised = replace(run, config=run.config | {"learner": {"name": "supervised"}})
    assert "training tells all training classes apart at once" in why_training_is_lower(supervised)
