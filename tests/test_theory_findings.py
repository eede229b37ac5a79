"""What all experiments share: intervals, tables, pictures, checks of options, and names that work when touched."""

from __future__ import annotations

import base64
import csv
import importlib
import inspect
import io
import math
import pkgutil
import re

import numpy as np
import pytest
from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring
from matplotlib.figure import Figure

import kshot.experiments
import kshot.theory
from kshot.errors import ConfigError, check_positive
from kshot.experiments import ClosenessDepth, experiments, plots
from kshot.experiments.findings import Findings, over_seeds
from kshot.files import csv_text, write_csv
from kshot.intervals import mean_interval, with_interval


def test_the_interval_of_a_mean_is_that_of_student():
    values = [[1.0, 2.0], [3.0, 4.0]]
    mean, ci95 = mean_interval(values)
    assert (mean, ci95) == (2.5, pytest.approx(3.182446 * math.sqrt(5 / 3) / 2, rel=1e-6))
    assert mean_interval(np.array([7.0], np.float32)).mean == 7
    assert math.isnan(mean_interval([7.0]).ci95)


# Tables


def test_tables_keep_every_digit_and_quote_what_needs_it(tmp_path):
    rows = [{"name": 'a "b", c', "value": 1 / 3, "none": None}, {"name": "d", "value": 2, "none": ""}]
    write_csv(tmp_path / "new" / "table.csv", rows)
    text = (tmp_path / "new" / "table.csv").read_bytes().decode()
    assert text == csv_text(rows)
    assert "\r" not in text
    read = list(csv.DictReader(io.StringIO(text)))
    assert (read[0]["name"], float(read[0]["value"]), read[0]["none"]) == ('a "b", c', 1 / 3, "")


def test_columns_of_a_table_can_be_chosen_but_not_forgotten():
    rows = [{"a": 1, "b": 2}, {"a": 3, "b": 4, "c": 5}]
    assert csv_text(rows, ["b", "a"]) == "b,a\n2,1\n4,3\n"
    assert csv_text([], ["b", "a"]) == "b,a\n"
    with pytest.raises(ValueError, match="'c'"):
        csv_text(rows)


def test_findings_show_their_verdict_and_the_head_of_their_table():
    rows = [{f"column{place}": 0.123456 * line for place in range(9)} for line in range(7)]
    shown = repr(Findings(rows, "It holds; 95% intervals over 2 seeds (0 1)", lambda figure: None)).splitlines()
    assert shown[0] == "It holds; 95% intervals over 2 seeds (0 1)"
    assert shown[2].split() == [f"column{place}" for place in range(8)]
    assert shown[5].split() == ["0.1235"] * 8
    assert shown[-1] == "(2 more rows and 1 more columns in .rows)"
    assert len(shown) == 10


def test_a_notebook_shows_verdict_table_and_picture():
    findings = Findings([{"a": "<b>", "c": 0.123456}], "a < b", lambda figure: figure.subplots().plot([1, 2]))
    shown = findings._repr_html_()
    assert "a &lt; b" in shown
    assert "&lt;b&gt;" in shown
    assert "0.1235" in shown
    picture = re.search(r'<img src="data:image/png;base64,([^"]+)">', shown)
    assert picture is not None
    assert base64.b64decode(picture[1]).startswith(b"\x89PNG")
    assert "more" not in repr(findings)


# Pictures


@pytest.mark.parametrize("margin", [0.5, 5.0, float("nan")])
def test_a_band_on_a_logarithmic_axis_never_drops_to_zero(margin):
    axes = Figure().subplots()
    plots.logarithmic(axes)
    plots.curve(axes, [1, 2, 3], [2.0, 2.0, 2.0], ci95=[0.1, margin, 0.1], label="measured")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    factor = math.exp(0 if math.isnan(margin) else margin / 2)
    assert heights.min() == pytest.approx(min(2 / factor, 2 / math.exp(0.05)))
    assert heights.max() == pytest.approx(max(2 * factor, 2 * math.exp(0.05)))


def test_a_band_on_a_plain_axis_is_the_interval_itself():
    axes = Figure().subplots()
    plots.curve(axes, [1, 2, 3], [2.0, 2.0, 2.0], ci95=[0.1, 5.0, 0.1], label="measured")
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (-3, 7)


def test_the_picture_of_few_seeds_has_a_band_above_zero():
    """With two seeds the interval of the distance at L = 3 reaches far below 0."""
    findings = ClosenessDepth(depths=[3, 5, 10], test_tasks=4, seeds=[0, 1]).run()
    assert findings.rows[0]["distance_ci95"] > findings.rows[0]["distance"]
    bands = findings.figure().axes[0].collections
    assert len(bands) == 2
    assert all((band.get_paths()[0].vertices > 0).all() for band in bands)


# Every number has its interval, its protocol and its seeds

SMALL = {
    "closeness-depth": {"depths": [3, 5, 10], "tasks": 3, "points": 3, "test_tasks": 4},
    "closeness-inner-loop": {"inner_times": [0], "paper_times": [0], "width": 8, "depth": 2, "max_steps": 3},
    "finite-width": {"widths": [16, 32, 64], "depth": 2, "max_steps": 3, "tasks": 2, "target_scale": 0.01},
    "spectrum": {"depths": [5, 10, 20], "tasks": 2, "points": 3},
    "excess-risk": {"steps": [1], "tasks": 20},
    "taxonomy": {"tasks": 1},
}
EXACT = {"by_formula", "objective", "difference", "gradient_difference"}  # of single comparisons, nothing is averaged


@pytest.mark.parametrize("name", experiments)
def test_every_number_has_its_interval_and_its_seeds(name):
    findings = experiments[name](**SMALL[name], seeds=(3, 8)).run()
    columns = [column for row in findings.rows for column, value in row.items() if isinstance(value, float)]
    inputs = {"inner_time"}
    bare = {column for column in columns if not column.endswith("_ci95")} - inputs - EXACT
    assert {f"{column}_ci95" for column in bare} <= set(findings.rows[0])
    assert "3 8" in findings.verdict
    assert "tasks" in findings.verdict
    assert "\n" not in findings.verdict
    assert "reference" not in findings.csv()


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"excess-risk", "taxonomy"}))  # the first refuses a seed alone
def test_one_seed_has_no_interval(name):
    findings = experiments[name](**SMALL[name], seeds=(3,)).run()
    assert "nan" not in findings.verdict
    assert "no intervals over seeds, since there is one (3)" in findings.verdict
    assert findings.figure()


def test_the_phrase_about_seeds():
    assert over_seeds((0, 4)) == "95% intervals over 2 seeds (0 4)"
    assert over_seeds((4,), fitted=True).endswith("(4) (those of exponents are of the fit alone)")
    assert (with_interval(1.25, 0.5, "+.2f"), with_interval(1.25, math.nan, ".1f")) == ("+1.25 ± 0.50", "1.2")


# Options and names


def test_one_check_says_which_option_is_not_positive():
    check_positive(width=3, rates=[0.1, 2.0])
    for options, message in [
        ({"width": 0}, "width is 0, but must be positive"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rates": [0.1, -2.0]}, r"rates is -2\.0"),
        ({"rates": []}, "rates is empty; give at least one value"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_positive(**options)


@pytest.mark.parametrize("room", [kshot.theory, kshot.experiments], ids=["theory", "experiments"])
def test_every_public_name_works_and_hides_no_module(room):
    assert len(room.__all__) == len(set(room.__all__))
    for name in room.__all__:
        value = getattr(room, name)
        assert name == "experiments" or value.__doc__, name  # its own, not that of a base
    modules = {module.name for module in pkgutil.iter_modules(room.__path__)}
    assert modules & set(room.__all__) == set()
    for name in modules:
        module = importlib.import_module(f"{room.__name__}.{name}")
        assert inspect.ismodule(getattr(room, name))
        assert module.__doc__


@pytest.mark.parametrize("name", experiments)
def test_options_are_given_by_keyword_and_documented_in_numpydoc(name):
    experiment = experiments[name]
    parameters = inspect.signature(experiment).parameters
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    documented = parse_docstring(experiment.__doc__ or "", DocstringStyle.NUMPYDOC).params
    assert [entry.arg_name for entry in documented] == list(parameters)
    with pytest.raises(TypeError):
        experiment([1, 2, 3])


def test_theory_trains_nothing():
    """What trains a network or runs a learner is an experiment."""
    running = re.compile(r"torch\.optim|kshot\.(learners|experiments|training)|tqdm|matplotlib")
    for module in pkgutil.iter_modules(kshot.theory.__path__):
        source = inspect.getsource(importlib.import_module(f"kshot.theory.{module.name}"))
        assert not running.search(source), module.name
