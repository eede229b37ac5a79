"""Locks, and checkpoints that are damaged: what a run folder refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.errors import CheckpointError, ConfigError
from kshot.runs import checkpoints
from kshot.runs.lock import HOLDER, locked

HOLD = "import sys, time\nfrom pathlib import Path\nfrom kshot.runs.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1]), doing='being trained'):\n    print('held', flush=True)\n    time.sleep(60)\n"


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path)
    expected = rf"is being trained by process {process.pid} on \S+ since 20\d\d-.*wait for it"
    with pytest.raises(ConfigError, match=expected), locked(tmp_path, doing="being trained"):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path, doing="being trained"), locked(tmp_path, doing="being trained"):
        assert (tmp_path / HOLDER).exists()
    assert not (tmp_path / HOLDER).exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot be written"),
        locked(tmp_path / "file" / "run", doing="being trained"),
    ):
        pass


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path, weights = tmp_path / "best.pt", {"weight": torch.randn(40, 40), "bias": torch.randn(40)}
    checkpoints.save(path, {"config": {}, "learner": weights})
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    noticed = 0
    for position in generator.integers(0, 8 * len(content), 150):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = checkpoints.load(path)
        except CheckpointError:
            noticed += 1
            continue
        for name, weight in weights.items():  # a bit of the padding between the files of the archive
            torch.testing.assert_close(found["learner"][name], weight, rtol=0, atol=0)
    assert noticed > 100


def test_files_of_any_content_are_refused(tmp_path: Path) -> None:
    path, generator = tmp_path / "best.pt", np.random.default_rng(1)
    checkpoints.save(path, {"config": {}, "learner": {}})
    archive = path.read_bytes()
    for size in generator.integers(1, len(archive), 60):
        for content in (generator.bytes(size), archive[:size], archive[: size // 2] + archive[size:]):
            path.write_bytes(content)
            with pytest.raises(CheckpointError, match=r"damaged or was not written by kshot"):
                checkpoints.load(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.load(tmp_path)
