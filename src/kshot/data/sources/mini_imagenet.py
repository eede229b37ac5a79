"""mini-ImageNet (Vinyals et al. 2016; Ravi and Larochelle 2017): 100 classes of ImageNet, 600 images each, 84x84."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kshot.data import archives
from kshot.data.classes import PARTS, ClassInfo, Part
from kshot.data.dataset import Normalization
from kshot.data.images import try_images, unreadable
from kshot.data.pickles import load_pickle
from kshot.data.sources.base import Source
from kshot.data.writing import Batch, Contents
from kshot.errors import DataError
from kshot.files import read_text

SIDE = 84
BATCH = 512
_LARGEST = 1 << 24  # bytes of a list
CLASSES: dict[Part, int] = {"train": 64, "val": 16, "test": 20}
IMAGES_PER_CLASS = 600
PICKLES: dict[Part, str] = {
    "train": "miniImageNet_category_split_train_phase_train.pickle",
    "val": "miniImageNet_category_split_val.pickle",
    "test": "miniImageNet_category_split_test.pickle",
}
NORMALIZATION = Normalization(
    (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255),
    (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255),
    "photo",
)


class MiniImageNet(Source):
    """Reads the three pickles of the MetaOptNet release, or the images with the class lists of Ravi and Larochelle."""

    name = "mini-imagenet"
    description = "100 classes of ImageNet, 600 images each, 84x84"
    classes = "64 / 16 / 20"
    obtain = (
        f"Pass the folder that holds {', '.join(PICKLES.values())}, from the release of MetaOptNet "
        f"(https://github.com/kjunelee/MetaOptNet), or the folder that holds train.csv, val.csv, test.csv "
        f"(https://github.com/twitter/meta-learning-lstm, data/miniImagenet) and the images in images/."
    )

    def read(self, path: Path | None, root: Path) -> Contents:
        """Read whichever of the two layouts the folder has; DataError if a class or an image is missing."""
        folder = self.required(path)
        if (folder / PICKLES["train"]).exists():
            return _contents(*_from_pickles(folder))
        if (folder / "train.csv").exists():
            return _contents(*_from_lists(folder))
        raise DataError(f"{folder} has neither layout of {self.name}. {self.how_to_prepare()}")


def _contents(names: dict[Part, list[str]], batches: Iterator[Batch], origin: str) -> Contents:
    for part in PARTS:
        if len(names[part]) != CLASSES[part]:
            raise DataError(
                f"{origin}: {part} has {len(names[part])} classes, and mini-imagenet has {CLASSES[part]}: "
                f"{archives.GET_IT_AGAIN}"
            )
    return Contents(
        [ClassInfo(name, "all", split=part, count=IMAGES_PER_CLASS) for part in PARTS for name in names[part]],
        (SIDE, SIDE, 3),
        batches=batches,
        origin=origin,
        normalization=NORMALIZATION,
    )


def _from_pickles(folder: Path) -> tuple[dict[Part, list[str]], Iterator[Batch], str]:
    names: dict[Part, list[str]] = {}
    numbers: dict[Part, list[int]] = {}
    for part in PARTS:
        content = _load(folder / PICKLES[part])
        numbers[part] = np.unique(content["labels"]).tolist()
        known = {label: name for name, label in content.get("catname2label", {}).items()}
        names[part] = [str(known.get(label, f"{part} class {label}")) for label in numbers[part]]

    def batches() -> Iterator[Batch]:
        first_class = 0
        for part in PARTS:
            content = _load(folder / PICKLES[part])  # one at a time: together they take 1.3 GB
            labels = first_class + np.searchsorted(numbers[part], content["labels"])
            for first in range(0, len(labels), BATCH):
                yield content["data"][first : first + BATCH], labels[first : first + BATCH]
            first_class += len(numbers[part])

    return names, batches(), f"MetaOptNet release, {folder.resolve()}"


def _load(path: Path) -> dict[str, Any]:
    content = load_pickle(path)
    if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
        raise DataError(f"{path} has no 'data' and 'labels': {archives.GET_IT_AGAIN}")
    content["data"], content["labels"] = np.asarray(content["data"]), np.asarray(content["labels"])
    if content["labels"].dtype.kind not in "iu" or content["labels"].ndim != 1:
        raise DataError(f"{path} has labels that are no whole numbers: {archives.GET_IT_AGAIN}")
    expected = (len(content["labels"]), SIDE, SIDE, 3)
    if content["data"].shape != expected or content["data"].dtype != np.uint8:
        raise DataError(
            f"{path} holds pixels {content['data'].dtype} {content['data'].shape}, not uint8 {expected}: "
            f"{archives.GET_IT_AGAIN}"
        )
    return content


def _from_lists(folder: Path) -> tuple[dict[Part, list[str]], Iterator[Batch], str]:
    names: dict[Part, list[str]] = {}
    paths: list[Path] = []
    labels: list[int] = []
    classes_before = 0
    for part in PARTS:
        rows = _read_list(folder / f"{part}.csv")
        names[part] = sorted(Counter(label for _, label in rows))
        position = {name: classes_before + index for index, name in enumerate(names[part])}
        paths += [folder / "images" / filename for filename, _ in rows]
        labels += [position[label] for _, label in rows]
        classes_before += len(names[part])
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{len(missing)} listed images are missing, the first is {missing[0]}; put them into images/")
    return names, _decoded(paths, np.asarray(labels)), f"Ravi and Larochelle's lists, {folder.resolve()}"


def _read_list(path: Path) -> list[tuple[str, str]]:
    try:
        rows = csv.DictReader(io.StringIO(read_text(path, limit=_LARGEST), newline=""))
        return [(row["filename"], row["label"]) for row in rows]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a list of filename,label ({error!r}): {archives.GET_IT_AGAIN}") from error


def _decoded(paths: list[Path], labels: np.ndarray) -> Iterator[Batch]:
    for first in range(0, len(paths), BATCH):
        arrays, failures = try_images(paths[first : first + BATCH], SIDE)
        if failures:
            raise unreadable(failures)
        yield np.stack(arrays), labels[first : first + BATCH]
