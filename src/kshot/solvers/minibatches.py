"""The mini-batch of support images that each inner step of a task takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot import seeding

_STREAM = seeding.key("minibatches")


def draw_minibatches(
    keys: NDArray[np.uint64], *, images: int, size: int, steps: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Positions in the support set that each step takes, (B, steps, M) int64 with M = min(size, images).

    Each epoch takes every image once, in an order of its own that is a pure function of the task's key. Mini-batches
    continue across the border of two epochs, so that one may hold an image twice.

    Parameters
    ----------
    keys
        (B,) uint64, one per task, as in ``Episodes.keys``.
    images
        The number of support images of a task.
    size
        The number of images per mini-batch.
    steps
        The number of inner steps.
    device
        The device of the positions.
    """
    size = min(size, images)
    epochs = np.arange(-(-steps * size // images))
    counters = epochs[:, None] * images + np.arange(images)
    numbers = seeding.bits(seeding.bits(keys, _STREAM)[:, None, None], counters)
    positions = np.argsort(numbers, -1, kind="stable").reshape(len(keys), counters.size)
    return torch.from_numpy(positions[:, : steps * size]).unflatten(1, (steps, size)).to(device)
