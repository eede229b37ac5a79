"""A prepared dataset as the rest of kshot sees it: three splits of one uint8 image array, ordered by class."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.errors import DataError
from kshot.measures import ACCURACY, Measure

SplitName = Literal["train", "val", "test", "train+val"]


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel on the 0..1 scale; ``augment`` names what training images go through.

    ``augment="photo"`` is random crop, colour jitter and horizontal flip (L19); ``"none"`` suits characters, which
    change their meaning when they are flipped.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Literal["photo", "none"] = "photo"


@dataclass(frozen=True)
class ImageForm:
    """What a network was trained to see: images (channels, height, width) of a dataset, and their normalisation."""

    dataset: str
    image_shape: tuple[int, int, int]
    normalization: Normalization


@dataclass(frozen=True, eq=False)
class Split:
    """The classes of one split.

    images: (M, H, W, C) uint8, memory-mapped, ordered by class: class c has rows ``starts[c] : starts[c] + counts[c]``.
    counts: (classes,) int64, images a class; classes may differ in size.
    class_names, domains: one string per class; the domain is its alphabet, superclass or script.
    tasks_within_domain: whether a task draws all its classes from one domain, as in a mixture of domains.
    usual_ways: classes a task where nobody says how many.
    measure: what is measured of its tasks.
    """

    name: str
    dataset: str
    images: NDArray[np.uint8]
    counts: NDArray[np.int64]
    class_names: tuple[str, ...]
    domains: tuple[str, ...]
    normalization: Normalization
    tasks_within_domain: bool = False
    usual_ways: ClassVar[int] = 5
    measure: ClassVar[Measure] = ACCURACY
    _resident: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.images):
            raise DataError(
                f"{self.dataset}/{self.name}: {len(self.images)} images, but the classes add up to "
                f"{int(self.counts.sum())}; prepare the dataset again: kshot data prepare {self.dataset}"
            )

    @property
    def num_classes(self) -> int:
        """How many classes the split holds."""
        return len(self.counts)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        height, width, channels = self.images.shape[1:]
        return channels, height, width

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(classes,) first row of each class."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(M,) class of each row, 0..num_classes-1."""
        return np.repeat(np.arange(self.num_classes), self.counts)

    def to(self, device: torch.device | str) -> Split:
        """Keep a copy of the images on `device` when they take at most half of its free memory; returns itself."""
        device = torch.device(device)
        if str(device) not in self._resident and self.images.nbytes <= _free_bytes(device) // 2:
            self._resident[str(device)] = torch.from_numpy(np.array(self.images)).to(device)
        return self

    def gather(self, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> Tensor:
        """Images at `rows` (any shape R): uint8 tensor (*R, H, W, C) on `device`."""
        resident = self._resident.get(str(torch.device(device)))
        if resident is not None:
            flat = resident.index_select(0, torch.from_numpy(rows.reshape(-1)).to(resident.device))
        else:
            flat = torch.from_numpy(self.images[rows.reshape(-1)]).to(device)
        return flat.view(*rows.shape, *self.images.shape[1:])


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # no /proc on this system: a gibibyte is a safe guess
        return 1 << 31


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test classes, which never overlap; made by ``kshot.load(name)``."""

    name: str
    train: Split
    val: Split
    test: Split
    train_val: Split

    def split(self, name: SplitName) -> Split:
        """The split of this name: train, val, test or train+val."""
        splits = {"train": self.train, "val": self.val, "test": self.test, "train+val": self.train_val}
        if name not in splits:
            raise DataError(f"there is no split {name!r}; choose one of: {', '.join(splits)}")
        return splits[name]
