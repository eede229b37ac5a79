"""The demo from end to end, on toy data in place of glyphs."""

from __future__ import annotations

import csv

import pytest

from kshot import demo
from kshot.cli import main
from kshot.evaluation.results import Evaluation
from kshot.runs.run import Run


@pytest.fixture
def small(monkeypatch, toy_data):
    monkeypatch.setattr(demo, "TASKS", 20)
    validation = {"validation_ways": 3, "validation_shots": 2, "validation_tasks": 4}
    monkeypatch.setattr(demo, "SHARED", demo.SHARED | validation)
    for name, settings in demo.TRAINING.items():
        changed = {"tasks_per_epoch": 12} if name == "supervised" else {"tasks_per_epoch": 2, "ways": 4}
        monkeypatch.setitem(demo.TRAINING, name, settings | changed)
    monkeypatch.setattr("kshot.cli.demo.datasets.load_images", lambda name, root: toy_data)


def test_demo_prints_a_table_and_draws_a_picture(small, tmp_path, capsys):
    words = ["demo", "--out", str(tmp_path), "--epochs", "2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for name in ("mtl", "supervised", "protonet", "untrained", "minus mtl", "training"):
        assert name in out
    assert "5 ways, 1 and 5 shots, 15 queries per class, 20 tasks of toy/test" in out
    assert len(Run(tmp_path / "mtl").evaluations) == 2
    assert (tmp_path / "task.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "table.txt").read_text().strip() in out
    with open(tmp_path / "mtl" / "metrics.csv") as file:
        assert len(list(csv.DictReader(file))) == 2
    first = [Evaluation.load(path).mean for path in sorted((tmp_path / "protonet" / "evaluation").iterdir())]
    assert main(words) == 0, "a second demo in the same folder starts anew"
    assert [Evaluation.load(path).mean for path in sorted((tmp_path / "protonet" / "evaluation").iterdir())] == first
