"""A dataset as the rest of kshot sees it: three splits of one array of images, ordered by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kshot.data import arrays
from kshot.data.arrays import ArrayKind, Pixels
from kshot.data.classes import (
    FRACTIONS,
    PARTS,
    ClassInfo,
    Part,
    by_split,
    check_fractions,
    refuse_overlap,
    share_out,
)
from kshot.data.split import ImageForm, Normalization, Split, image_text
from kshot.errors import ConfigError, DataError, check_choice

__all__ = ["Dataset", "ImageForm", "Normalization", "Split", "SplitName"]

SplitName = Literal["train", "val", "test", "train+val"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training, validation and test classes, which never overlap.

    ``kshot.load(name)`` makes one from a prepared dataset, `from_arrays` from arrays in memory.

    Parameters
    ----------
    name
        What the dataset is called.
    train, val, test
        The splits.
    train_val
        The classes of train and val together.
    """

    name: str
    _: KW_ONLY
    train: Split
    val: Split
    test: Split
    train_val: Split

    def __repr__(self) -> str:
        lines = [f"Dataset {self.name!r}: {image_text(self.train)}"]
        lines += [f"  {part:5} {self.split(part).summary()}" for part in PARTS]
        domains = {domain for part in PARTS for domain in self.split(part).domains}
        if len(domains) > 1:
            within = "; all classes of a task come from one of them" if self.train.tasks_within_domain else ""
            lines.append(f"  {len(domains)} domains{within}")
        return "\n".join(lines)

    def split(self, name: SplitName) -> Split:
        """The split of this `name`: train, val, test or train+val."""
        splits = {"train": self.train, "val": self.val, "test": self.test, "train+val": self.train_val}
        if name not in splits:
            raise DataError(f"there is no split {name!r}; choose one of: {', '.join(splits)}")
        return splits[name]

    @classmethod
    def from_rows(
        cls,
        name: str,
        images: Pixels,
        *,
        classes: Sequence[ClassInfo],
        normalization: Normalization,
        tasks_within_domain: bool = False,
        checksum: str | None = None,
    ) -> Dataset:
        """The dataset whose rows are ordered by split (train, val, test) and by class, as `classes` are.

        So every split, and train and val together, is one contiguous slice of one array, which is not copied.

        Parameters
        ----------
        name
            What the dataset is called.
        images
            All images (N, H, W, C) uint8, in that order.
        classes
            One entry per class: its name, domain, split and number of images.
        normalization
            Mean and standard deviation of each channel, and which augmentation training takes.
        tasks_within_domain
            Whether all classes of a task come from one domain, unless a sampler is told otherwise.
        checksum
            What identifies the content, for results to name; None if it is not known.
        """

        def split(split_name: str, parts: Sequence[Part]) -> Split:
            chosen = [info for info in classes if info.split in parts]
            first = sum(info.count for info in classes if PARTS.index(info.split) < PARTS.index(parts[0]))
            counts = np.asarray([info.count for info in chosen], np.int64)
            return Split(
                name=split_name,
                dataset=name,
                images=images[first : first + int(counts.sum())],
                counts=counts,
                class_names=tuple(info.name for info in chosen),
                domains=tuple(info.domain for info in chosen),
                normalization=normalization,
                tasks_within_domain=tasks_within_domain,
                checksum=checksum,
            )

        alone: dict[str, Any] = {part: split(part, [part]) for part in PARTS}
        return cls(name, **alone, train_val=split("train+val", ["train", "val"]))

    @classmethod
    def from_arrays(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        *,
        kind: ArrayKind = "images",
        name: str = "arrays",
        class_names: Sequence[str] | None = None,
        domains: Sequence[str] | None = None,
        splits: Mapping[Part, Sequence[str | int]] | None = None,
        fractions: tuple[float, float, float] = FRACTIONS,
        seed: int = 0,
        augment: Literal["photo", "none"] = "none",
        tasks_within_domain: bool = False,
    ) -> Dataset:
        """A dataset of arrays in memory: images, feature vectors or one-dimensional series, with a label per row.

        Bytes (uint8) are kept as bytes; all other numbers are kept as float32. Both are normalised per channel by mean
        and standard deviation of the training classes; a vector has one channel per feature.

        Parameters
        ----------
        images
            Images (M, H, W) or (M, H, W, C), vectors (M, D), or series (M, T) or (M, C, T).
        labels
            (M,) whole numbers or names of classes.
        kind
            What the array holds: "images", "vectors" or "series". A network sees a vector as an image (D, 1, 1), which
            the backbone `mlp` takes with ``in_channels=D, image_size=1``, and a series as an image (C, 1, T).
        name
            What the dataset is called in tables and in the configuration of a run.
        class_names
            The names of the classes 0, 1, ..., for labels that are numbers; None to call a class what its label is.
        domains
            The domain of each class, in the order of `class_names`, or of the sorted labels; None for one domain.
        splits
            The classes of each split by name or number, as in ``{"train": [0, 1, 2], "val": [3, 4], "test": [5, 6]}``;
            None to choose them by `fractions` and `seed`.
        fractions
            Shares of the classes in train, val and test, without `splits`; at least two classes go to each.
        seed
            Which classes go where, without `splits`.
        augment
            "photo" for photographs of bytes: random crop, colour jitter and mirroring in training.
        tasks_within_domain
            Whether all classes of a task come from one domain.

        Raises
        ------
        DataError
            If arrays and labels do not fit together, a value is not finite, a class is empty or in two splits, or a
            split has fewer than two classes.
        ConfigError
            If an option makes no sense for these arrays.

        Examples
        --------
        >>> features = np.random.default_rng(0).normal(size=(200, 16))
        >>> data = Dataset.from_arrays(features, np.repeat(np.arange(10), 20), kind="vectors")
        >>> data.train.image_shape
        (16, 1, 1)
        """
        pixels = arrays.stored_form(images, kind)
        names, positions = arrays.class_names_of(labels, len(pixels), class_names)
        _check_augment(augment, pixels)
        check_fractions(fractions)
        if domains is not None and len(domains) != len(names):
            raise DataError(f"{len(domains)} domains were given for {len(names)} classes; give one domain per class")
        if splits is None:
            home = share_out(names, val=fractions[1], test=fractions[2], seed=seed, stream="arrays")
        else:
            home = arrays.splits_of(names, splits)
        counts = np.bincount(positions, minlength=len(names)).tolist()
        groups = ["all"] * len(names) if domains is None else list(domains)
        classes = by_split(
            ClassInfo(class_name, str(domain), split=home[class_name], count=count)
            for class_name, domain, count in zip(names, groups, counts)
        )
        refuse_overlap(name, classes)
        rows = arrays.in_order(pixels, positions, [names.index(info.name) for info in classes])
        mean, std = arrays.channel_moments(arrays.training_rows(rows, classes))
        return cls.from_rows(
            name,
            rows,
            classes=classes,
            normalization=Normalization(mean, std, augment),
            tasks_within_domain=tasks_within_domain,
        )


def _check_augment(augment: str, pixels: Pixels) -> None:
    check_choice("augment", augment, ("photo", "none"))
    if augment == "photo" and (pixels.dtype != np.uint8 or pixels.shape[-1] not in (1, 3)):
        raise ConfigError(
            f"augment='photo' is for uint8 images of 1 or 3 channels, and these are {pixels.dtype} of "
            f"{pixels.shape[-1]} channels; choose augment='none'"
        )
