"""Dead ends of a run: damaged or unwritable files, and a folder that is removed while it is trained into."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_toys import MEASURE, TINY
from training_toys import STEPS, at_step, toy_learner, toy_train

import kshot.files
from kshot.errors import CheckpointError
from kshot.files import write_text
from kshot.runs import Run
from kshot.training.distributed import Processes


@pytest.fixture
def run(trained_runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_runs / "mtl-0", tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What can be gone on with -------------------------------------------------------------------------------------------


def test_a_run_with_a_damaged_best_checkpoint_is_measured_by_its_last(run: Path, say: Any) -> None:
    assert say("evaluate", run, *MEASURE)[0] == 0
    best = run / "checkpoints" / "best.pt"
    whole = best.read_bytes()
    best.write_bytes(whole[:-200])
    code, _, err = say("evaluate", run, *MEASURE)
    assert code == 2
    assert "best.pt is damaged" in err
    assert "kshot evaluate RUN --checkpoint last" in err
    code, out, _ = say("evaluate", run, *MEASURE, "--checkpoint", "last")
    assert code == 0
    assert "run, last checkpoint" in out
    assert say("compare", run, run, *MEASURE, "--checkpoint", "last")[0] == 0
    best.write_bytes(whole)
    assert len(Run(run).evaluations) == len(Run(run, checkpoint="last").evaluations) == 1
    assert "last checkpoint" not in say("evaluate", run, *MEASURE)[1]


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_a_resume_that_is_refused_changes_no_file(run: Path, say: Any, name: str) -> None:
    path = run / "checkpoints" / name
    path.write_bytes(path.read_bytes()[:-200])
    before = contents(run)
    code, _, err = say("train", "--resume", run, "--max-epochs", 3)
    assert code == 2
    assert f"{name} is damaged" in err
    assert contents(run) == before


@pytest.mark.parametrize(
    "words",
    [
        ["--shots", 1],
        ["--learning-rate", 0.5],
        ["--device", "meta"],
        ["--max-epochs", 0],
        ["--root", "nowhere"],
        ["--nothing", 1],
    ],
)
def test_a_resume_with_other_options_changes_no_file(run: Path, say: Any, words: list[object]) -> None:
    before = contents(run)
    assert say("train", "--resume", run, *words)[0] == 2
    assert contents(run) == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_run_that_cannot_be_written_is_measured_all_the_same(
    run: Path, say: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = say("evaluate", run, *MEASURE)[1]
    shutil.rmtree(run / "evaluation")
    before = contents(run)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    reason = {errno.EACCES: "permission is denied", errno.EROFS: "the disk is read-only"}.get(number, "disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(kshot.files.os, "replace", refuse)
        with pytest.warns(UserWarning, match=f"nothing of this was saved: .*{reason}"):
            code, out, _ = say("evaluate", run, *MEASURE)
    assert (code, out) == (0, expected)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, "permission is denied; correct the permissions"),
        (errno.EROFS, "the disk is read-only; choose another folder"),
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EIO, "the disk has failed"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_or_read_says_why(
    tmp_path: Path, number: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    toy_train(run=tmp_path / "run", max_epochs=1)
    with monkeypatch.context() as patch:
        learner = at_step(toy_learner(), STEPS, lambda: patch.setattr(kshot.files.os, "fsync", refuse))
        with pytest.raises(CheckpointError, match=f"could not be written.*{expected}"):
            toy_train(learner, run=tmp_path / "run", resume=True)
    monkeypatch.setattr(kshot.files, "open", refuse, raising=False)
    with pytest.raises(CheckpointError, match=f"cannot be read: {expected}"):
        Run(tmp_path / "run").load()


# A folder that does not stay ----------------------------------------------------------------------------------------


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replaced(folder: Path) -> None:
    moved(folder)
    shutil.copytree(folder.with_name("elsewhere"), folder)


def without_lock(folder: Path) -> None:
    (folder / ".lock").unlink()


@pytest.mark.parametrize("act", [removed, moved, replaced, without_lock])
@pytest.mark.parametrize("step", [1, STEPS + 1, 3 * STEPS])
def test_training_stops_if_its_folder_is_gone(tmp_path: Path, act: Callable[[Path], None], step: int) -> None:
    folder = tmp_path / "run"
    after: list[dict[str, bytes]] = []

    def attack() -> None:
        act(folder)
        after.append(contents(tmp_path))

    with pytest.raises(CheckpointError, match="was removed, moved or replaced while it was trained into"):
        toy_train(at_step(toy_learner(), step, attack), run=folder)
    assert {name: content for name, content in contents(tmp_path).items() if ".holder" not in name} == {
        name: content for name, content in after[0].items() if ".holder" not in name
    }


def test_a_folder_that_goes_while_the_end_is_written_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Processes, "wait", lambda _: removed(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        toy_train(run=tmp_path / "run")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "checkpoints/best.pt", "checkpoints/last.pt"])
def test_a_file_that_was_removed_meanwhile_is_written_again(tmp_path: Path, name: str) -> None:
    undisturbed, folder = tmp_path / "undisturbed", tmp_path / "run"
    toy_train(run=undisturbed)
    toy_train(at_step(toy_learner(), 3 * STEPS, lambda: (folder / name).unlink()), run=folder)
    for each in ("config.yaml", "metrics.csv"):
        assert (folder / each).read_bytes() == (undisturbed / each).read_bytes()
    assert Run(folder).weights == Run(undisturbed).weights
    assert (folder / "checkpoints" / "last.pt").exists()


def test_a_run_that_is_removed_while_it_is_measured_is_not_made_again(run: Path, say: Any, tmp_path: Path) -> None:
    opened = Run(run, root=os.environ["KSHOT_ROOT"])
    _ = opened.learner
    shutil.rmtree(run)
    with pytest.warns(UserWarning, match="nothing of this was saved: .* it has no config.yaml"):
        (result,) = opened.evaluate(shots=1, tasks=10, queries=3)
    assert 0 < result.mean < 1
    assert not run.exists()


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    other, ours = tmp_path / ".report.html.host.1.tmp", tmp_path / f".page.html.{kshot.files._HOST}.99999999.tmp"
    for leftover in (other, ours):
        leftover.write_text("half")
    write_text(tmp_path / "page.html", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".report.html.host.1.tmp", "page.html"]


def test_the_end_of_a_training_leaves_no_temporary_file(say: Any, tmp_path: Path) -> None:
    for name in ("", "checkpoints", "evaluation"):
        (tmp_path / "run" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name / f".x.{kshot.files._HOST}.99999999.tmp").write_text("half")
    assert say("train", *TINY, "--run", tmp_path / "run")[0] == 0
    assert list((tmp_path / "run").rglob("*.tmp")) == []
