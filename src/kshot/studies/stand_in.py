"""Random images in the form of a dataset that is not at hand, so that a trial can say what a training on it costs."""

from __future__ import annotations

import re

import numpy as np

from kshot.data.classes import Part
from kshot.data.dataset import Dataset
from kshot.data.sources import SOURCES
from kshot.errors import DataError
from kshot.studies.cells import Cell

_SIDES = {
    "cifar-fs": 32,
    "fc100": 32,
    "omniglot-background": 28,
    "omniglot": 28,
    "omniglot-lake": 28,
}  # pixels; all others have 84
_GREY = ("omniglot", "omniglot-background", "omniglot-lake")
_TRAINING_CLASSES = {"omniglot-background": 640, "omniglot-lake": 800}  # of those whose sources count alphabets
_TEST_CLASSES, _IMAGES = 20, 64


def stand_in(cell: Cell) -> Dataset:
    """Random images with the pixels and the number of training classes of the cell's dataset.

    Raises DataError for a dataset that is no source of kshot's, whose form is not known.
    """
    name = cell.dataset
    if name not in SOURCES:
        raise DataError(f"{name} is not prepared, and its form is not known; prepare it first (kshot data prepare)")
    counts = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", SOURCES[name].classes)]
    training = _TRAINING_CLASSES.get(name, counts[0] if counts else 64)
    side, channels = _SIDES.get(name, 84), 1 if name in _GREY else 3
    generator = np.random.default_rng(0)
    base = generator.integers(0, 256, (_IMAGES, side, side, channels), np.uint8)
    total = training + 2 * _TEST_CLASSES
    names = [f"class-{number:04}" for number in range(total)]
    splits: dict[Part, list[str | int]] = {
        "train": [*names[:training]],
        "val": [*names[training : training + _TEST_CLASSES]],
        "test": [*names[training + _TEST_CLASSES :]],
    }
    return Dataset.from_arrays(
        np.concatenate([base] * total),
        [each for each in names for _ in range(_IMAGES)],
        splits=splits,
        name=name,
        augment="photo" if channels == 3 else "none",
    )
