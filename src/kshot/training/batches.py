"""The tasks of each step, from the sampler to what a learner sees."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.data.augmentation import PhotoAugmentation, prepare_images
from kshot.data.dataset import Normalization
from kshot.data.episodes import Episodes, Sampler
from kshot.training.distributed import Processes

# Launching the many small kernels of augmentation costs a GPU step as much as the network itself; several steps
# share one launch. On a CPU several steps share a call of the sampler, and fewer of them one of augmentation, whose
# calls cost as much as 40 images of 32 pixels: prepared images take four times the memory, and should stay in cache.
_IMAGES_AT_ONCE_ON_GPU = 4096
_BYTES_SAMPLED_AT_ONCE_ON_CPU = 1 << 23
_BYTES_PREPARED_AT_ONCE_ON_CPU = 1 << 22


class StepTasks:
    """Which tasks belong to which step: step g has the numbers ``g*meta_batch .. (g+1)*meta_batch - 1``.

    Parameters
    ----------
    sampler
        Makes a task from its number.
    normalization
        Of the images; None for points of regression.
    augmentation
        Of the images; None for none.
    meta_batch
        Tasks per step, of all processes together.
    processes
        Each takes an equal, contiguous share of every step.

    Attributes
    ----------
    share
        Tasks per step that this process takes.
    images_per_task
        Support and query images.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        normalization: Normalization | None,
        augmentation: PhotoAugmentation | None,
        meta_batch: int,
        processes: Processes,
    ) -> None:
        processes.check_meta_batch(meta_batch)
        self.sampler, self.normalization, self.augmentation = sampler, normalization, augmentation
        self.meta_batch, self.device, self.rank = meta_batch, processes.device, processes.rank
        self.share = meta_batch // processes.count
        images = sampler.episodes(np.zeros(1, np.int64)).images()
        self.images_per_task = images.shape[1]
        if self.device.type == "cuda":
            self._steps_at_once = self._prepared_at_once = max(
                1, _IMAGES_AT_ONCE_ON_GPU // (self.share * self.images_per_task)
            )
        else:
            self._steps_at_once = max(1, _BYTES_SAMPLED_AT_ONCE_ON_CPU // (self.share * images.nbytes))
            prepared = self.share * images.numel() * torch.float32.itemsize
            self._prepared_at_once = max(1, _BYTES_PREPARED_AT_ONCE_ON_CPU // prepared)

    @property
    def images_per_step(self) -> int:
        """Images of one step, of all processes together."""
        return self.meta_batch * self.images_per_task

    def numbers(self, first: int, last: int) -> NDArray[np.int64]:
        """Numbers of this process's tasks in steps first..last-1, step after step: (steps * share,)."""
        starts = np.arange(first, last)[:, None] * self.meta_batch + self.rank * self.share
        return (starts + np.arange(self.share)).reshape(-1)

    def steps(self, first: int, last: int) -> Iterator[Episodes]:
        """The prepared tasks of steps first..last-1, one batch per step."""
        for start in range(first, last, self._steps_at_once):
            numbers = self.numbers(start, min(start + self._steps_at_once, last))
            block = self.sampler.episodes(numbers, self.device)
            for begin in range(0, len(numbers), self._prepared_at_once * self.share):
                prepared = self._prepared(block.part(begin, begin + self._prepared_at_once * self.share))
                for offset in range(0, prepared.tasks, self.share):
                    yield prepared.part(offset, offset + self.share)

    def _prepared(self, episodes: Episodes) -> Episodes:
        return prepare_images(episodes, self.normalization, augmentation=self.augmentation)
