"""Pages of studies that are done: which numbers stand there, and of what."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_toys import TINY, TRIAL

import kshot
from kshot.files import write_text
from kshot.studies import plan as plans
from kshot.studies.cell import DONE, run_cell

REGRESSION = """
common: {data.name: sinusoids, backbone.name: mlp, validation_tasks: 4, max_epochs: 2, tasks_per_epoch: 4,
         learning_rate: 0.0001}
cells:
  maml: {options: {learner.name: maml}}
  anil: {options: {learner.name: anil}}
measure: {shots: [5], tasks: 12}
"""


@pytest.fixture
def done(tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a study of a text, of which some cells are done."""
    monkeypatch.setattr(plans, "_tried", lambda *args, **options: TRIAL)

    def make(text: str, *, entries: str = "*") -> kshot.Study:
        write_text(tmp_path / "toy.yaml", text)
        study = kshot.Study(tmp_path / "toy.yaml", folder=tmp_path / "study", root=tiny_root, seeds=[0])
        for cell in study.matching(entries):
            study.cell_folder(cell).write(cell)
            assert run_cell(study.cell_folder(cell), root=tiny_root) == DONE
        return study

    return make


def files_of(study: kshot.Study) -> dict[str, str]:
    study.report()
    return {name: (study.folder / name).read_text() for name in ("table.csv", "table.md", "paired.csv", "report.html")}


def test_a_run_that_was_measured_in_other_ways_too_keeps_its_place(done):
    study = done(TINY)
    before = files_of(study)
    run = kshot.Run(study.cell_folder(study.cells[0]).run_path, root=study.root)
    for others in ({"ways": 6}, {"ways": 3}, {"adaptation": "ridge"}, {"query_balance": "dirichlet"}, {"split": "val"}):
        run.evaluate(**{"ways": 5, "shots": 1, "queries": 2, "tasks": 12} | others)
    assert files_of(study) == before


@pytest.mark.parametrize("other", ["seed: 1", "queries: 3", "split: val", "query_balance: dirichlet"])
def test_rows_of_other_tasks_are_not_compared(done, other):
    """They have as many tasks, and their differences would look paired."""
    protonet = "  protonet: {recipe: protonet-cifar-fs-5shot-conv4, options: {ways: 5}"
    assert protonet in TINY
    study = done(TINY.replace(protonet, f"{protonet}, measure: {{shots: [1], {other}}}"))
    assert len(files_of(study)["paired.csv"].splitlines()) == 1


def test_rows_of_the_same_tasks_are_compared(done):
    assert len(files_of(done(TINY))["paired.csv"].splitlines()) == 1 + 2


def test_errors_of_regression_are_no_percentages(done):
    study = done(REGRESSION, entries="maml")
    folder = study.cell_folder(study.cells[0])
    error = folder.result()["measured"][0]["mean"]
    files = files_of(study)
    assert f"| maml | {error:.4f} ± " in files["table.md"]
    assert "Mean squared error: mean" in files["table.md"]
    assert "Accuracy" not in files["table.md"]
    assert [line.split(",")[1:4] for line in files["table.csv"].splitlines()[1:]] == [
        ["maml", "1", "5"],
        ["anil", "1", "5"],
    ]
    assert "5-way" not in files["report.html"]
