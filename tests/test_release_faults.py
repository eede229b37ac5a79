"""benchmarks/release_faults.py breaks MTL just as the release of W21 does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import kshot
from kshot.backbones import DropBlock, batch_of_tasks
from kshot.learners import learners

SCRIPT = Path(__file__).parents[1] / "benchmarks/release_faults.py"


@pytest.fixture(scope="module")
def faults():
    sys.path.insert(0, str(SCRIPT.parent))
    before = set(learners)
    try:
        yield runpy.run_path(str(SCRIPT))
    finally:
        sys.path.remove(str(SCRIPT.parent))
        for name in set(learners) - before:
            del learners._classes[name]


def test_labels_are_merged_as_in_the_release(faults):
    classes = torch.tensor([[40, 0, 7, 12, 9], [30, 31, 32, 33, 34]])
    renamed = faults["renamed_in_place"](classes, classes)
    assert renamed.tolist() == [[1, 1, 2, 3, 4], [0, 1, 2, 3, 4]]  # 40 becomes 0, and 0 becomes 1


@pytest.mark.parametrize("size", [2, 3])
def test_blocks_of_the_release_have_holes(faults, size):
    """Against the release's own pairing, written with `repeat` as there, for each task apart."""
    layers = [cls(0.3, size=size, ramp_tasks=1).train() for cls in (DropBlock, faults["IncompleteDropBlock"])]
    maps = torch.ones(4, 6, 8, 8)
    kept = []
    for layer in layers:
        layer.training_tasks += 1
        with batch_of_tasks(2, np.arange(2, dtype=np.uint64)):
            kept.append(layer(maps) > 0)
    whole, holed = kept
    assert (holed | ~whole).all()
    assert not whole[~holed].any()
    places = 8 - size + 1
    for task in (slice(0, 2), slice(2, 4)):
        # the corners of whole blocks are not seen from outside: take those of the same draws
        with batch_of_tasks(2, np.arange(2, dtype=np.uint64)):
            drawn = faults["uniform_like"](maps[..., :places, :places])
        corners = (drawn < 0.3 / size**2 * 64 / places**2)[task].long()
        indices = torch.nonzero(corners)
        offsets = torch.stack([torch.arange(size).repeat_interleave(size), torch.arange(size).repeat(size)], 1)
        offsets = functional.pad(offsets, (2, 0))
        left = (size - 1) // 2
        expected = functional.pad(corners, (left, size - 1 - left, left, size - 1 - left))
        marked = indices.repeat(size**2, 1) + offsets.repeat(len(indices), 1)
        expected[marked[:, 0], marked[:, 1], marked[:, 2], marked[:, 3]] = 1
        assert torch.equal(holed[task], expected == 0)


def test_incomplete_blocks_drop_less(faults):
    """About 7 to 8 in place of 9.6 to 10 of 100 values, at the sizes of ResNet-12 on 32 pixels."""
    for side, whole in ((4, 0.096), (2, 0.1)):
        shares = faults["dropped_shares"](2, side)
        assert abs(shares["whole"].mean - whole) < 0.005
        assert 0.05 < shares["incomplete"].mean < 0.09


def test_the_counter_begins_again_at_half(faults):
    backbone = kshot.ResNet12(widths=(4, 4, 4, 4), image_size=16)
    learner = faults["MultiTaskWithCounterFault"](backbone, num_classes=5, reset_epoch=2)
    counts = []
    for _ in range(3):
        for layer in learner.modules():
            if isinstance(layer, DropBlock):
                layer.training_tasks += 10
        learner.observe_training_split(None)
        counts.append(int(backbone.blocks[3].drop.training_tasks))
    assert counts == [10, 0, 10]


@pytest.mark.slow
def test_a_small_run_prints_the_cost_of_each_fault(faults, tiny_root, tmp_path, monkeypatch, capsys):
    words = "--epochs 2 --tasks-per-epoch 6 --tasks 10 --queries 2 --validation-tasks 4 --seeds 0 1 --widths 4 4 4 4"
    arguments = ["release_faults.py", *words.split(), "--data", "tiny", "--root", str(tiny_root)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path)])
    faults["main"]()
    out = capsys.readouterr().out
    for name in ("label merge", "last epoch", "counter", "incomplete blocks"):
        assert f"{name}, 5-shot: costs" in out
