"""Single images as tasks, for supervised training: each image of a split once per epoch."""

from __future__ import annotations

import numpy as np
import torch

from kshot import seeding
from kshot.data.episodes import Episodes, IntArray
from kshot.data.split import Split


class ImageSampler:
    """Single images for supervised training, as tasks of one support image among all classes of the split.

    Numbers e*M .. (e+1)*M - 1 are the M images of the split in the order of epoch e, each exactly once.

    Parameters
    ----------
    split
        The classes and their images.
    seed
        Names the orders.
    """

    def __init__(self, split: Split, seed: int) -> None:
        self.split = split
        self._key = seeding.key(seed, "images", split.name)
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def _rows(self, numbers: IntArray) -> IntArray:
        epochs, positions = np.divmod(numbers, len(self.split.images))
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            if epoch != self._epoch:
                order_keys = seeding.bits(seeding.bits(self._key, epoch), np.arange(len(self.split.images)))
                self._epoch, self._order = epoch, np.argsort(order_keys, kind="stable")
            inside = epochs == epoch
            rows[inside] = self._order[positions[inside]]
        return rows

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The images with these numbers: support (B, 1, ...), no query, classes (B, num_classes)."""
        rows = self._rows(np.asarray(numbers))
        images = self.split.gather(rows, device)[:, None]
        return Episodes(
            support=images,
            support_labels=torch.from_numpy(self.split.labels[rows])[:, None].to(device),
            query=images[:, :0],
            query_labels=torch.empty((len(rows), 0), dtype=torch.int64, device=device),
            classes=torch.arange(self.split.num_classes, device=device).expand(len(rows), -1),
            keys=seeding.bits(seeding.bits(self._key, 1 << 40), numbers),
        )
