"""A few of the mutations of `make attack`, and the readers of a run's files one by one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_toys import MEASURE

from kshot.errors import CheckpointError, DataError
from kshot.evaluation.results import Evaluation
from kshot.files import write_atomically
from kshot.runs import Run, checkpoints


@pytest.fixture
def run(trained_runs: Path, tiny_root: Path, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(trained_runs / "mtl-0", tmp_path / "run")), root=tiny_root)


def rewrite(run: Run, section: str, name: str, value: Any, keep: bool) -> None:
    """Change a value of config.yaml, and keep the line with the checksum, or leave it out."""
    path = run.folder / "config.yaml"
    text = path.read_text()
    config = yaml.safe_load(text)
    config[section][name] = value
    path.write_text(yaml.safe_dump(config) + (text[text.index("# checksum") :] if keep else ""))


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("data", "image_shape", [1, 16], "image_shape"),
        ("data", "normalization", {"mean": [float("nan")], "std": [1.0], "augment": "none"}, "normalization"),
        ("data", "normalization", {"mean": [0.5], "std": [0.0], "augment": "none"}, "normalization"),
        ("learner", "name", 3, "learner.name"),
        ("training", "seed", "0", "training.seed"),
        ("training", "shots", 4, "mixes two runs"),
        ("backbone", "width", "wide", "another learner or backbone"),
    ],
)
def test_what_training_cannot_have_written_is_refused(
    run: Run, section: str, name: str, value: Any, expected: str
) -> None:
    rewrite(run, section, name, value, keep=False)
    with pytest.raises(CheckpointError, match=expected):
        Run(run.folder).load()


def test_a_config_that_was_changed_is_refused_unless_its_checksum_is_removed(run: Run) -> None:
    rewrite(run, "training", "patience", 3, keep=True)
    with pytest.raises(CheckpointError, match="its checksum differs"):
        Run(run.folder).load()
    rewrite(run, "training", "patience", 3, keep=False)
    Run(run.folder).load()


def test_references_in_a_config_are_refused_before_they_are_followed(run: Run) -> None:
    levels = "".join(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]\n" for level in range(1, 30))
    (run.folder / "config.yaml").write_text(f"x0: &x0 [1]\n{levels}")
    with pytest.raises(CheckpointError, match="references"):
        Run(run.folder).load()
    (run.folder / "config.yaml").write_text("[" * 10_000)
    with pytest.raises(CheckpointError, match="damaged"):
        Run(run.folder).load()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(run: Run) -> None:
    for name, read in (("config.yaml", run.load), ("metrics.csv", run.metrics), ("checkpoints/best.pt", run.load)):
        kept = (run.folder / name).read_bytes()
        (run.folder / name).unlink()
        os.mkfifo(run.folder / name)
        with pytest.raises((CheckpointError, DataError), match="no regular file"):
            read() if name != "config.yaml" else Run(run.folder).load()
        (run.folder / name).unlink()
        (run.folder / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace("accuracy", "acuracy", 1), "no column"),
        (lambda text: text.replace("\n2,", "\n3,"), "epochs are not"),
        (lambda text: text + text.splitlines()[-1][:9] + "\n", "cells"),
        (lambda text: text.replace(text.splitlines()[1].split(",")[2], "nan"), "loss is nan"),
        (lambda text: text.replace(text.splitlines()[1].split(",")[4], "1e30"), "validation_accuracy is 1e"),
        (lambda text: text.replace(text.splitlines()[1].split(",")[4], "0.25"), "not what the last checkpoint says"),
    ],
)
def test_metrics_are_checked(run: Run, change: Any, expected: str) -> None:
    path = run.folder / "metrics.csv"
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=expected):
        run.metrics()


def test_an_epoch_that_a_kill_kept_from_the_file_comes_from_the_checkpoint(run: Run) -> None:
    whole = run.metrics()
    path = run.folder / "metrics.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    again = Run(run.folder).metrics()
    assert {name: list(column) for name, column in again.items()} == {
        name: list(column) for name, column in whole.items()
    }


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (["values", 0], 1e30, "a value is 1e"),
        (["values", 0], None, "a value is None"),
        (["values"], [0.5], "not one value"),
        (["mean"], 0.9, "mean is 0.9"),
        (["protocol", "shots"], "1", "protocol.shots"),
        (["protocol", "statistics"], {}, "protocol.statistics"),
        (["measure"], [], "measure"),
        (["domains"], ["a"], "domains"),
        (["seconds"], -1, "seconds"),
    ],
)
def test_an_evaluation_is_checked_with_a_checksum_and_without(
    run: Run, place: list[Any], value: Any, expected: str
) -> None:
    run.evaluate(shots=1, tasks=20, queries=3)
    path = next((run.folder / "evaluation").iterdir())
    content = json.loads(path.read_text())
    *way, last = place
    part = content
    for name in way:
        part = part[name]
    part[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="checksum differs"):
        Evaluation.load(path)
    del content["checksum"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=expected):
        Evaluation.load(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: content.pop("optimizer"), "no optimizer"),
        (lambda content: content["counters"].update(epoch="2"), "epoch is '2'"),
        (lambda content: content["counters"]["history"].pop(), "one row for each epoch"),
        (lambda content: content["optimizer"]["param_groups"][0].update(lr=float("nan")), "learning rate"),
        (lambda content: content["optimizer"]["param_groups"][0].update(betas=(0.5, 0.5)), "another betas"),
        (lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.ones(1)), "another form"),
        (lambda content: content["optimizer"]["state"][0].pop("exp_avg"), "another form"),
        (lambda content: content["optimizer"]["state"][0].update(exp_avg="x"), "another form"),
        (lambda content: content["optimizer"]["state"][0].update(exp_avg=None), "another form"),
        (lambda content: content["schedule"].update(best="x"), "best of the schedule"),
        (lambda content: content["schedule"].clear(), "the schedule has no"),
        (lambda content: next(iter(content["learner"].values())).fill_(torch.nan), "not finite"),
        (lambda content: content.update(learner=[]), "weights by name"),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_with_is_refused(run: Run, say: Any, change: Any, expected: str) -> None:
    content = torch.load(run.last, weights_only=True)
    change(content)
    checkpoints.save(run.last, content)
    before = {path: path.read_bytes() for path in run.folder.rglob("*.*") if path.is_file()}
    code, _, err = say("train", "--resume", run.folder, "--max-epochs", 3, "--progress", "false")
    assert code == 2
    assert expected in err
    after = {path: path.read_bytes() for path in before}
    assert [path.name for path in before if before[path] != after[path]] == []


def test_a_damaged_checkpoint_is_said_where_its_evaluations_would_be_shown(run: Run, say: Any) -> None:
    assert say("evaluate", run.folder, *MEASURE)[0] == 0
    content = bytearray(run.best.read_bytes())
    weight = torch.load(run.best, weights_only=True)["learner"]["weight"]
    content[content.index(weight.numpy().tobytes()) + 5] ^= 1
    run.best.write_bytes(content)
    code, _, err = say("report", run.folder)
    assert code == 2
    assert "best.pt is damaged" in err


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(run: Run, say: Any) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    written: list[Path] = []
    write_atomically(run.folder / "metrics.csv", lambda file: written.append(Path(file.name)))
    living, dead = (
        written[0].with_name(written[0].name.replace(str(os.getpid()), str(process)))
        for process in (os.getppid(), gone.pid)
    )
    orphans = [dead, run.folder / ".config.yaml.1.tmp"]
    for path in (living, *orphans):
        path.write_text("half")
    os.utime(orphans[1], (0, 0))
    assert say("train", "--resume", run.folder, "--progress", "false")[0] == 0
    assert living.exists()
    assert not any(path.exists() for path in orphans)
