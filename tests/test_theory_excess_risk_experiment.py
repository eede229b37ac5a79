"""The experiment on excess risks: what it measures, what it says of the bounds, and what it refuses."""

from __future__ import annotations

import csv
import io
from itertools import product

import pytest

from kshot.errors import ConfigError
from kshot.experiments import excess_risk, experiments
from kshot.experiments.excess_risk import ExcessRisk
from kshot.experiments.excess_risk_figure import BIASED_COIN, COIN, verdict
from kshot.experiments.excess_risk_measures import EXPECTED_GRADIENT, MEASURED
from kshot.theory.task_mixture import Linear

SMALL = {"steps": (0, 1, 4), "tasks": 300, "seeds": (0, 1)}


@pytest.fixture(scope="module")
def findings():
    return ExcessRisk(**SMALL).run()


def test_experiment_measures_every_cell(findings) -> None:
    rows = list(csv.DictReader(io.StringIO(findings.csv())))
    mixture = [row for row in rows if row["regression"] not in (COIN, BIASED_COIN)]
    cells = {(row["regression"], row["learner"], int(row["steps"])) for row in mixture}
    assert cells == set(product(["linear", "logistic"], ["MAML", "TSA-MAML"], [0, 1, 4]))
    assert all(float(row[f"{name}_ci95"]) > 0 for row in mixture for name in (*MEASURED, EXPECTED_GRADIENT))


def test_experiment_finds_what_the_theory_says(findings) -> None:
    for row in findings.rows:
        assert row["excess_risk"] <= row["theorem1"]
        assert row["regression"] in (COIN, BIASED_COIN) or row["excess_risk"] <= row["convex"]
        assert row[EXPECTED_GRADIENT] <= row["theorem2"]
        if row["learner"] == "MAML":
            assert row["optimization_gap"] <= row["convex_optimization"] <= row["theorem1_optimization"]
    for regression in ("linear", "logistic"):
        one, several = (
            next(row for row in findings.rows if (row["regression"], row["learner"]) == (regression, learner))
            for learner in ("MAML", "TSA-MAML")
        )
        assert several["squared_distance"] < 0.6 * one["squared_distance"]
        assert several["excess_risk"] < 0.6 * one["excess_risk"]
    assert "Theorem 1 holds in all 12 cells" in findings.verdict
    inside, outside = findings.verdict[findings.verdict.index("Theorem 2") :].split("; as a bound of the larger ")
    assert inside.startswith("Theorem 2, of E_T |E_D[grad L]|^2, holds in all 12 cells of the mixture")
    assert "holds in all 22 cells of one step on K tosses of a coin (exact)" in inside
    assert outside.startswith("E|grad L|^2 it holds in all 12 cells of the mixture, and FAILS on tosses")
    assert "fair coin: from K = 256 on" in outside


def test_verdict_says_so_where_a_bound_is_broken(findings) -> None:
    broken = [
        {**row, "theorem1": 0.0} if (row["steps"], row["learner"]) == (4, "MAML") else row for row in findings.rows
    ]
    assert "Theorem 1 FAILS in 2 of 12 cells" in verdict(broken, "protocol")


def test_a_bound_within_the_interval_is_not_broken(findings) -> None:
    wide = [{**row, "theorem1": 0.0, "excess_risk_ci95": 2 * float(row["excess_risk"]) + 1e-9} for row in findings.rows]
    assert "Theorem 1 holds in all 12 cells" in verdict(wide, "protocol")


def test_same_options_give_the_same_findings(findings, monkeypatch) -> None:
    monkeypatch.setattr(excess_risk, "_FAMILIES", (Linear(),))
    again = ExcessRisk(**SMALL).run().rows
    assert again == [row for row in findings.rows if row["regression"] != "logistic"]


def test_picture_can_be_drawn(findings, tmp_path) -> None:
    findings.figure().savefig(tmp_path / "picture.png", dpi=40)
    assert (tmp_path / "picture.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": ()}, "steps"),
        ({"steps": (1, -1)}, "steps"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"rate": 1.5}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"shots": 0}, "shots"),
        ({"tasks": 0}, "tasks"),
        ({"groups": 6}, "groups"),
        ({"initializations": 1001}, "k-means"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiments["excess-risk"](**options)
