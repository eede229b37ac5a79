"""Two trainings and one folder: the second is refused, or has a folder of its own; nothing is mixed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_toys import TINY

from kshot.runs import Run


@pytest.fixture
def training(tiny_root: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that trains into runs/mtl-tiny-conv4-seed0 for as long as the test lasts."""
    words = [sys.executable, "-m", "kshot", "train", *TINY, "--max-epochs", "100000", "--patience", "0"]
    environment = os.environ | {"KSHOT_ROOT": str(tiny_root), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    last = tmp_path / "runs" / "mtl-tiny-conv4-seed0" / "checkpoints" / "last.pt"
    for _ in range(600):
        if last.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


def test_a_folder_that_is_trained_into_is_refused_and_a_killed_training_goes_on(
    training: subprocess.Popen[bytes], say: Any
) -> None:
    assert training.poll() is None
    folder = Path("runs/mtl-tiny-conv4-seed0")
    for words in (["--resume", folder, "--progress", "false"], [*TINY, "--run", folder, "--shots", 1]):
        code, _, err = say("train", *words)
        assert code == 2
        assert f"by process {training.pid} on" in err or "holds a trained run" in err
    assert f"by process {training.pid} on" in say("train", "--resume", folder, "--progress", "false")[2]
    assert say("train", *TINY, "--max-epochs", 1)[0] == 0  # by default it goes elsewhere
    (elsewhere,) = [path for path in Path("runs").iterdir() if path != folder]
    assert elsewhere.name.startswith("mtl-tiny-conv4-seed0-")
    training.kill()
    training.wait()
    epochs = len(Run(folder).metrics()["epoch"])
    code, _, err = say("train", "--resume", folder, "--max-epochs", epochs + 1, "--progress", "false")
    assert (code, err) == (0, "")
    assert len(Run(folder).metrics()["epoch"]) == epochs + 1


def test_the_default_folder_is_one_per_options(say: Any) -> None:
    options: list[list[object]] = [[], ["--shots", 1], ["--learner.normalize-over", "batch"], ["--backbone.width", 4]]
    for more in options:
        assert say("train", *TINY, "--max-epochs", 1, *more)[0] == 0
    folders = sorted(Path("runs").iterdir())
    assert folders[0].name == "mtl-tiny-conv4-seed0"
    assert len(folders) == len(options)
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in folders]
    assert sorted(config["training"]["shots"] for config in configs) == [1, 2, 2, 2]
    assert "holds a trained run" in say("train", *TINY, "--max-epochs", 1, "--device", "cpu")[2]
    assert "holds a trained run" in say("train", *TINY, "--max-epochs", 1, "--shots", 1)[2]
