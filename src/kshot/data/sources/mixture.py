"""Mixture: several prepared datasets as domains; each task is drawn from one domain (Zhou et al. 2021, section 5.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from kshot.data import store
from kshot.data.classes import PARTS, ClassInfo
from kshot.data.dataset import Dataset
from kshot.data.sources.base import Source
from kshot.data.writing import Batch, Contents
from kshot.errors import ConfigError

BATCH = 1024


class Mixture(Source):
    """The union of prepared datasets, split by split; the domain of a class is the dataset that it comes from.

    Parameters
    ----------
    parts
        Names of prepared datasets, at least two.
    size
        Side of all images; by default the largest side among the parts. Grey images become three equal channels if
        another part has colours.
    """

    name = "mixture"
    description = "several prepared datasets as domains; each task comes from one domain"
    classes = "the sum of its parts"
    obtain = "Prepare the parts first, and name them with --parts; no files are needed."
    arguments = "--parts A B --name my-mixture"
    reads_files = False
    needs_name = True
    domains: ClassVar[Mapping[str, str]] = {}  # what the domain of a part is called if not by the part's name

    def __init__(self, parts: Sequence[str], size: int | None = None) -> None:
        if len(set(parts)) < 2 or len(set(parts)) < len(parts):
            raise ConfigError(f"a mixture has at least two parts, all different, and not {', '.join(parts) or 'none'}")
        self.parts, self.size = list(parts), size

    def read(self, path: Path | None, root: Path) -> Contents:
        """Open the parts; DataError if one is not prepared."""
        datasets = [store.load(part, root) for part in self.parts]
        shapes = [dataset.train.image_shape for dataset in datasets]
        channels, side = max(shape[0] for shape in shapes), self.size or max(max(shape[1:]) for shape in shapes)
        photos = all(dataset.train.normalization.augment == "photo" for dataset in datasets)
        return Contents(
            [
                ClassInfo(
                    f"{dataset.name}/{name}",
                    self.domains.get(dataset.name, dataset.name),
                    split=part,
                    count=int(count),
                )
                for dataset in datasets
                for part in PARTS
                for name, count in zip(dataset.split(part).class_names, dataset.split(part).counts)
            ],
            (side, side, channels),
            batches=_batches(datasets, side, channels),
            origin=f"mixture of {', '.join(self.parts)}",
            augment="photo" if photos else "none",
            tasks_within_domain=True,
        )


def _batches(datasets: list[Dataset], side: int, channels: int) -> Iterator[Batch]:
    classes_before = 0
    for dataset in datasets:
        for part in PARTS:
            split = dataset.split(part)
            for first in range(0, len(split.images), BATCH):
                rows = slice(first, first + BATCH)
                yield _fitted(split.images[rows], side, channels), classes_before + split.labels[rows]
            classes_before += split.num_classes


def _fitted(images: NDArray[Any], side: int, channels: int) -> NDArray[np.uint8]:
    """Images (M, H, W, 1 or 3) at the common size and number of channels; images that fit are not resized."""
    if images.shape[1:3] != (side, side):
        planes = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
        resized = F.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
        images = resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], channels)))
