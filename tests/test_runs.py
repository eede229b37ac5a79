"""`Run`, the one owner of the run folder: what it reads, measures, compares and shows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kshot
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.evaluation.results import Evaluation
from kshot.learners import MAML, MultiTask, ProtoNet
from kshot.runs import Run

FEW = {"tasks": 20, "queries": 3, "ways": 3}


@pytest.fixture
def copied(trained_runs: Path, tiny_root: Path, tmp_path: Path) -> tuple[Run, Run]:
    """Two trained runs without evaluations: mtl and protonet."""
    runs = Path(shutil.copytree(trained_runs, tmp_path / "runs"))
    return Run(runs / "mtl-0", root=tiny_root), Run(runs / "proto", root=tiny_root)


def test_a_run_reads_what_training_wrote(copied: tuple[Run, Run]) -> None:
    run = copied[0]
    assert isinstance(run.learner, MultiTask)
    assert not run.learner.training
    assert (run.name, run.data.name, run.config["learner"]["name"]) == ("mtl-0", "tiny", "mtl")
    assert list(run.metrics()["epoch"]) == [1.0, 2.0]
    assert set(run.timing()) >= {"seconds", "images_per_second"}
    assert run.image_form.image_shape == run.data.test.image_shape
    assert run.learner is run.learner


def test_several_shots_are_measured_on_shared_tasks_and_saved(copied: tuple[Run, Run]) -> None:
    run = copied[0]
    results = run.evaluate(shots=[1, 5], **FEW)
    assert [result.protocol.shots for result in results] == [1, 5]
    saved = {result.protocol.shots: result for result in Run(run.folder, root=run.root).evaluations}
    for result in results:
        np.testing.assert_array_equal(saved[result.protocol.shots].values, result.values)
        direct = kshot.evaluate(run.learner, run.data.test, shots=result.protocol.shots, **FEW)
        np.testing.assert_array_equal(direct.values, result.values)


def test_several_evaluations_are_printed_one_below_the_other(copied: tuple[Run, Run]) -> None:
    run = copied[0]
    assert repr(run.evaluations) == "no evaluations"
    results = run.evaluate(shots=[1, 5], **FEW)
    assert str(results) == f"{results[0]!r}\n{results[1]!r}"
    assert str(run.evaluations) == str(results)
    assert str(Run.of(run.learner, run.data, run.config).evaluate(shots=1, **FEW)) == repr(results[0])


@pytest.mark.parametrize("shots", ["five", ["1", "5"], 1.5, [2.0]])
def test_shots_that_are_no_whole_numbers_are_refused(copied: tuple[Run, Run], shots) -> None:
    with pytest.raises(ConfigError, match="give a whole number or a list of them"):
        copied[0].evaluate(shots=shots, **FEW)


def test_a_table_is_of_a_list_of_runs(copied: tuple[Run, Run]) -> None:
    for given in (copied[0], "runs/a", ["runs/a"]):
        with pytest.raises(ConfigError, match="a table is of a list of runs"):
            kshot.table(given)


def test_saved_results_are_used_again_only_on_request(copied: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = copied[0]
    first = run.evaluate(shots=1, **FEW)
    with monkeypatch.context() as patch:
        patch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
        np.testing.assert_array_equal(run.evaluate(shots=1, reuse=True, **FEW)[0].values, first[0].values)
    with pytest.raises(DataError, match="too few"):
        run.evaluate(shots=1, reuse=True, **FEW | {"ways": 50})


def test_a_run_is_measured_on_other_data(copied: tuple[Run, Run], toy_data) -> None:
    other = replace(copied[0].data, name="other")
    result = copied[0].evaluate(shots=1, data=other, split="val", **FEW)[0]
    assert result.protocol.split == "val"


def test_runs_are_compared_in_pairs(copied: tuple[Run, Run]) -> None:
    first, second = copied
    text = str(first.compare(second, shots=[1, 5], **FEW))
    differences = [
        kshot.compare(*(run.evaluate(shots=count, reuse=True, **FEW)[0] for run in (second, first))) for count in (1, 5)
    ]
    for difference in differences:
        assert difference.measure.text(difference.mean, difference.ci95, signed=True) in text
    assert str(kshot.table([first, second], paired=True)) == text
    with pytest.raises(ConfigError, match="two runs"):
        first.compare(**FEW)


def test_a_table_of_runs_without_evaluations_says_what_to_do(copied: tuple[Run, Run]) -> None:
    with pytest.raises(DataError, match="evaluate"):
        kshot.table(copied)
    with pytest.raises(ConfigError, match="no runs"):
        kshot.table([])


def test_a_report_is_written(copied: tuple[Run, Run], tmp_path: Path) -> None:
    first, second = copied
    first.compare(second, **FEW)
    page = first.report(tmp_path / "page.html", second)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "proto" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("with_folder", [True, False])
def test_training_returns_a_run(with_folder: bool, toy_data, tmp_path: Path) -> None:
    learner = kshot.create_learner("protonet", toy_data, backbone="conv4", backbone_options={"width": 8})
    path = tmp_path / "run" if with_folder else None
    run = kshot.train(
        learner, toy_data, ways=3, shots=1, queries=2, max_epochs=1, tasks_per_epoch=4, validation_tasks=4,
        validation_queries=2, run=path, progress=False,
    )  # fmt: skip
    assert run.learner is learner
    assert run.data is toy_data
    assert run.result is not None
    assert run.result.best_epoch == 1
    result = run.evaluate(shots=1, **FEW)[0]
    assert [str(saved) for saved in run.evaluations] == [str(result)]
    assert "protonet on toy" in repr(run)
    assert str(kshot.table([run])).count("protonet" if path is None else "run") >= 1
    if path is None:
        with pytest.raises(ConfigError, match="has no folder"):
            run.metrics()
    else:
        assert Run(path).load().state_dict().keys() == learner.state_dict().keys()


def test_statistics_are_one_row_each(toy_data) -> None:
    learner = MAML(kshot.Conv4(8, in_channels=1, image_size=16), ways=3)
    run = Run.of(learner, toy_data, {"data": {"name": "toy"}, "learner": {"name": "maml"}})
    results = run.evaluate(shots=1, **FEW)
    assert [result.protocol.statistics for result in results] == ["transductive", "inductive"]
    assert len(run.evaluate(shots=1, statistics="inductive", **FEW)) == 1


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run folder"):
        Run(tmp_path / "nowhere").load()
    assert "no such folder" in repr(Run(tmp_path / "nowhere"))


def test_an_evaluation_belongs_to_the_weights_that_were_measured(copied: tuple[Run, Run]) -> None:
    """The checkpoint may be replaced while it is measured: the result is stamped with what was loaded."""
    run, other = copied
    before = run.evaluate(shots=1, **FEW)[0].weights
    shutil.copy(other.best, run.best)
    stale: Evaluation = run.evaluate(shots=1, **FEW)[0]
    assert stale.weights == before
    assert Run(run.folder, root=run.root).evaluations == []
    assert isinstance(ProtoNet, type)
