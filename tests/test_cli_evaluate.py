"""`kshot evaluate` and `kshot compare` end to end: what is saved, used again, and kept apart."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from cli_toys import MEASURE, page_of

from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Evaluation, compare
from kshot.runs.run import Run


def test_evaluate_saves_every_task_and_prints_intervals(say, runs):
    code, out, _ = say("evaluate", runs / "mtl-0", runs / "mtl-1", "--shots", 1, 2, *MEASURE)
    assert code == 0
    assert "5 ways, 1 and 2 shots, 4 queries per class, 30 tasks of tiny/test" in out
    assert "Over 2 training seeds (mtl-0, mtl-1): 1-shot" in out
    saved = [Evaluation.load(path) for path in (runs / "mtl-0" / "evaluation").glob("*30tasks*.json")]
    assert sorted(result.protocol.shots for result in saved) == [1, 2]
    learner, data = Run(runs / "mtl-0").learner, Run(runs / "mtl-0").data
    for result in saved:
        assert f"{100 * result.mean:.2f} ± {100 * result.ci95:.2f}" in out
        direct = evaluate(learner, data.test, shots=result.protocol.shots, queries=4, tasks=30)
        np.testing.assert_array_equal(direct.accuracies, result.accuracies)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ways", "50"], "tiny/test has 6 classes, too few for 50 ways"),
        (["--shots", "1", "0"], "shots is 0, but must be at least 1"),
        (["--shots", "1", "9"], "9 shots + 4 queries need 13"),
        (["--statistics", "running", "transductive"], "ProtoNet was not trained for transductive statistics"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_what_cannot_be_measured_is_refused_before_any_feature_is_computed(
    say, runs, monkeypatch, command, words, message
):
    monkeypatch.setattr("kshot.runs.measurement.shared_features", None)
    code, _, err = say(command, runs / "proto", runs / "mtl-0", *words, "--queries", 4)
    assert code == 2
    assert message in err


def test_the_last_run_is_checked_before_the_first_is_measured(say, runs, tmp_path, monkeypatch):
    train_maml(say, tmp_path / "maml")
    monkeypatch.setattr("kshot.runs.measurement.shared_features", None)
    for command in ("evaluate", "compare"):
        code, _, err = say(command, runs / "mtl-0", tmp_path / "maml", "--ways", 3, *MEASURE)
        assert code == 2
        assert "MAML was built for 5-way tasks and cannot learn 3-way ones" in err


def test_evaluate_passes_options_to_the_adaptation(say, runs):
    words = ["--adaptation", "logistic", "--adaptation.c", "0.5", "--shots", "3", "--style", "csv", *MEASURE]
    code, out, _ = say("evaluate", runs / "mtl-0", *words)
    assert code == 0
    assert "mtl-0,mtl,logistic-c=0.5,float32,tiny,test,5,3,4,,30,,0,running,0." in out
    path = next((runs / "mtl-0" / "evaluation").glob("*c=0.5*.json"))
    assert json.loads(path.read_text())["adaptation"] == "logistic-c=0.5"


def test_compare_prints_paired_differences_and_evaluates_only_what_is_missing(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 40, "--queries", 4]
    code, out, err = say(*words)
    assert code == 0
    first, second = (
        Evaluation.load(next((runs / name / "evaluation").glob("*2shot*40tasks*.json"))) for name in ("mtl-0", "proto")
    )
    difference = compare(second, first)
    assert f"{100 * difference.mean:+.2f} ± {100 * difference.ci95:.2f}" in out
    assert "2-shot, minus mtl-0" in out
    assert err.count("evaluating") == 2
    monkeypatch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
    assert say(*words)[:2] == (0, out)


def test_one_run_is_compared_with_nothing(say, runs, monkeypatch):
    monkeypatch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
    code, _, err = say("compare", runs / "mtl-0", "--tasks", 44)
    assert code == 2
    assert "kshot compare needs two runs or more" in err


def test_results_of_other_weights_are_not_used_again_and_copies_keep_theirs(say, runs, tmp_path, monkeypatch):
    words = ["--shots", 2, "--tasks", 42, "--queries", 4]
    assert say("compare", runs / "mtl-0", runs / "proto", *words)[0] == 0
    for name in ("mtl-0", "proto"):
        shutil.copytree(runs / name, tmp_path / name, copy_function=shutil.copyfile)
        os.utime(tmp_path / name / "checkpoints" / "best.pt", (2e9, 2e9))
    with monkeypatch.context() as patch:
        patch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
        assert say("compare", "mtl-0", "proto", *words)[0] == 0
    shutil.copyfile(runs / "mtl-1" / "checkpoints" / "best.pt", tmp_path / "mtl-0" / "checkpoints" / "best.pt")
    code, _, err = say("compare", "mtl-0", "proto", *words)
    assert code == 2
    assert "mtl-0 mixes two runs" in err
    shutil.copyfile(runs / "mtl-0" / "checkpoints" / "last.pt", tmp_path / "mtl-0" / "checkpoints" / "best.pt")
    os.utime(tmp_path / "mtl-0" / "checkpoints" / "best.pt", (0, 0))
    assert Run(tmp_path / "mtl-0").evaluations == []
    assert say("compare", "mtl-0", "proto", *words)[2].count("evaluating") == 1
    assert [result.protocol.tasks for result in Run(tmp_path / "mtl-0").evaluations] == [42]


def test_evaluation_under_torchrun_waits_for_nobody(say, runs, monkeypatch):
    def join(*_: object) -> None:
        raise AssertionError("joined the other processes")

    monkeypatch.setattr("torch.distributed.init_process_group", join)
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, out, _ = say("evaluate", runs / "mtl-0", "--tasks", 5, "--queries", 4)
    assert code == 0
    assert "5 ways, 5 shots, 4 queries per class, 5 tasks of tiny/test" in out


def test_precisions_do_not_mix(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 41, "--queries", 4]
    code, out, _ = say(*words)
    assert code == 0
    assert "Precision: float32." in out
    code, other, err = say(*words, "--precision", "bf16")
    assert code == 0
    assert "Precision: bf16." in other
    assert err.count("evaluating") == 2
    monkeypatch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
    assert say(*words)[:2] == (0, out)
    assert "Precision: float32." in page_of([runs / "mtl-0", runs / "proto"])


def test_tasks_within_domain_do_not_mix_with_others(say, runs, monkeypatch):
    words = ["compare", runs / "mtl-0", runs / "proto", "--shots", 2, "--tasks", 43, "--queries", 4]
    code, out, _ = say(*words)
    assert code == 0
    code, other, err = say(*words, "--within-domain", "true")
    assert code == 0
    assert "43 tasks of tiny/test, each within one domain" in other
    assert err.count("evaluating") == 2
    page_of([runs / "mtl-0", runs / "proto"])
    monkeypatch.setattr("kshot.runs.measurement.Measurement.evaluations_of", None)
    assert say(*words)[:2] == (0, out)
    assert say(*words, "--within-domain", "false")[:2] == (0, out)
    assert "true,43" in say(*words, "--within-domain", "--style", "csv")[1]


def test_learners_that_adapt_weights_get_a_row_for_each_kind_of_statistics(say, runs, tmp_path):
    train_maml(say, tmp_path / "maml")
    code, out, _ = say("evaluate", tmp_path / "maml", "--shots", 1, "--tasks", 3, "--queries", 2)
    assert code == 0
    assert "maml, transductive" in out
    assert "maml, inductive" in out
    assert "Protocol of maml, inductive: 5 ways, 1 shot, 2 queries per class, 3 tasks of tiny/test, inductive" in out
    code, out, _ = say("compare", tmp_path / "maml", "--shots", 1, "--tasks", 3, "--queries", 2)
    assert code == 0
    assert "1-shot, minus maml, transductive" in out
    shown = page_of([tmp_path / "maml"])
    assert "maml, transductive" in shown
    assert "maml, inductive" in shown
    code, out, _ = say("evaluate", tmp_path / "maml", "--statistics", "inductive", "--tasks", 3, "--queries", 2)
    assert code == 0
    assert "transductive" not in out


def train_maml(say, run):
    words = ["--data", "tiny", "--learner", "maml", "--backbone.width", "4", "--max-epochs", "1"]
    sizes = ["--tasks-per-epoch", "4", "--validation-tasks", "2", "--shots", "1", "--queries", "2"]
    assert say("train", *words, *sizes, "--validation-queries", "2", "--run", run)[0] == 0
