"""The classes of one split with their images, and how a learner sees these images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kshot.data.arrays import Pixels
from kshot.data.classes import first_rows, listed
from kshot.errors import DataError
from kshot.measures import ACCURACY, Measure


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, and what training images go through before they are normalised.

    Parameters
    ----------
    mean, std
        Per channel; on the scale 0..1 for images of bytes, in their own units for floating-point values.
    augment
        "photo" is random crop, colour jitter and horizontal flip (L19); "none" suits characters, which change their
        meaning when they are flipped, and everything that is no photograph.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Literal["photo", "none"] = "photo"


@dataclass(frozen=True)
class ImageForm:
    """What a network was trained to see.

    Parameters
    ----------
    dataset
        Name of the dataset that it was trained on.
    image_shape
        (channels, height, width) of the images.
    normalization
        How they were normalised.
    """

    dataset: str
    image_shape: tuple[int, int, int]
    normalization: Normalization


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Split:
    """The classes of one split, and their images.

    Parameters
    ----------
    name
        "train", "val", "test" or "train+val".
    dataset
        Name of the dataset.
    images
        (M, H, W, C), ordered by class: class c has the rows ``starts[c] : starts[c] + counts[c]``. Bytes (uint8) of a
        prepared dataset, memory-mapped; float32 for arrays of other numbers.
    counts
        (classes,) int64, images per class; classes may differ in size.
    class_names, domains
        One string per class; the domain is its alphabet, superclass or script.
    normalization
        How a learner sees the images.
    tasks_within_domain
        Whether all classes of a task come from one domain, as in a mixture of domains.
    checksum
        Identifies the content of a prepared dataset; None for arrays in memory.

    Attributes
    ----------
    usual_ways
        Classes per task by default.
    measure
        What is measured on its tasks.
    """

    name: str
    dataset: str
    images: Pixels
    counts: NDArray[np.int64]
    class_names: tuple[str, ...]
    domains: tuple[str, ...]
    normalization: Normalization
    tasks_within_domain: bool = False
    checksum: str | None = None
    usual_ways: ClassVar[int] = 5
    measure: ClassVar[Measure] = ACCURACY
    _resident: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.images):
            raise DataError(
                f"{self.dataset}/{self.name}: {len(self.images)} images, but the classes add up to "
                f"{int(self.counts.sum())}; prepare the dataset again: kshot data prepare {self.dataset}"
            )

    def __repr__(self) -> str:
        domains = Counter(self.domains)
        lines = [f"Split {self.dataset}/{self.name}: {self.summary()}, {image_text(self)}"]
        lines.append(f"  classes: {listed(self.class_names, 5)}")
        if len(domains) > 1:
            within = "; all classes of a task come from one of them" if self.tasks_within_domain else ""
            lines.append(f"  domains: {listed((f'{name} ({n})' for name, n in domains.items()), 5)}{within}")
        return "\n".join(lines)

    def summary(self) -> str:
        """How many classes and images there are, in a few words."""
        least, most = int(self.counts.min()), int(self.counts.max())
        per_class = f"{least}" if least == most else f"{least} to {most}"
        return f"{self.num_classes} classes, {len(self.images)} images ({per_class} per class)"

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
        return first_rows(self.counts)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(M,) class of each row, 0..num_classes-1."""
        return np.repeat(np.arange(self.num_classes), self.counts)

    def to(self, device: torch.device | str) -> Split:
        """Keep a copy of the images on `device` if they take at most half of its free memory; returns the split."""
        device = torch.device(device)
        if str(device) not in self._resident and self.images.nbytes <= _free_bytes(device) // 2:
            self._resident[str(device)] = torch.from_numpy(np.array(self.images)).to(device)
        return self

    def gather(self, rows: NDArray[np.int64], device: torch.device | str = "cpu") -> Tensor:
        """The images at some rows.

        Parameters
        ----------
        rows
            Row numbers, an array of any shape R.
        device
            Where the images go.

        Returns
        -------
        Tensor
            (*R, H, W, C) uint8 as stored, or (*R, C, H, W) float32 for floating-point images, which ``normalize`` takes
            as they are.
        """
        resident = self._resident.get(str(torch.device(device)))
        if resident is not None:
            flat = resident.index_select(0, torch.from_numpy(rows.reshape(-1)).to(resident.device))
        else:
            flat = torch.from_numpy(self.images[rows.reshape(-1)]).to(device)
        images = flat.view(*rows.shape, *self.images.shape[1:])
        return images if images.dtype == torch.uint8 else images.movedim(-1, -3)


def image_text(split: Split) -> str:
    """What the images of a split are, in a few words: "28x28 px, 1 channel", or their number of features."""
    channels, height, width = split.image_shape
    if height == width == 1:
        text = f"vectors of {channels} features"
    else:
        text = f"{height}x{width} px, {channels} channel{'s' if channels > 1 else ''}"
    return text if split.images.dtype == np.uint8 else f"{text}, {split.images.dtype}"


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # no /proc on this system: two gibibytes are a safe guess
        return 1 << 31
