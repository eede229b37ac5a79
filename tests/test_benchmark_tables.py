"""The scripts of benchmarks/ that make a table of runs, on runs that took a second to train."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import pytest

import kshot
from kshot.solvers import LogisticRegression

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch, capsys, tiny_root):
    """Run a script with these words, and return what it printed."""

    def run(name: str, *words: object) -> str:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.setattr(sys, "argv", [name, *map(str, words), "--root", str(tiny_root)])
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_each_adaptation_is_measured_on_the_same_tasks_as_evaluate(script, runs, tiny_root, tmp_path):
    words = ["--adaptations", "logistic", "tune-all", "--shots", 2, "--queries", 3, "--tasks", 8]
    out = script(
        "adaptations.py",
        runs / "mtl-0",
        runs / "proto",
        *words,
        "--out",
        tmp_path / "table.csv",
        "--picture",
        tmp_path / "table.png",
    )
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    run = kshot.Run(runs / "proto", root=tiny_root)
    for name in ("own", "logistic", "tune-all"):
        result = kshot.evaluate(
            run.learner, run.data, shots=2, queries=3, tasks=8, adaptation=None if name == "own" else name
        )
        row = next(row for row in rows if (row["learner"], row["adaptation"]) == ("protonet", name))
        assert float(row["accuracy"]) == pytest.approx(result.mean)
        assert f"{result.measure.text(result.mean, result.ci95)}" in out


def test_the_strength_of_a_head_is_that_of_evaluate(script, runs, tiny_root, tmp_path):
    words = ["--strengths", 0.1, 3, "--shots", 2, "--queries", 3, "--tasks", 8, "--out", tmp_path / "strength"]
    script("head_strength.py", runs / "mtl-0", *words)
    rows = list(csv.DictReader((tmp_path / "strength.csv").open()))
    assert len(rows) == 4
    assert (tmp_path / "strength.png").read_bytes().startswith(b"\x89PNG")
    run = kshot.Run(runs / "mtl-0", root=tiny_root)
    for row in rows:
        if row["features"] == "unit features":  # as MTL's own are
            head = LogisticRegression(c=float(row["c"]))
            result = kshot.evaluate(run.learner, run.data.val, shots=2, queries=3, tasks=8, adaptation=head)
            assert float(row["accuracy"]) == pytest.approx(result.mean)
