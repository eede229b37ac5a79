"""CIFAR-FS (Bertinetto et al. 2019) and FC100 (Oreshkin et al. 2018): two splits of the classes of CIFAR-100."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kshot.data import archives
from kshot.data.classes import PARTS, ClassInfo
from kshot.data.dataset import Normalization
from kshot.data.pickles import load_pickle
from kshot.data.sources.base import Source, packaged_splits
from kshot.data.writing import Batch, Contents
from kshot.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
MD5 = "eb9058c3a382ffc7106e4002c42a8d85"
FOLDER = "cifar-100-python"
IMAGES_PER_CLASS = 600
FIELDS = {
    "meta": ("fine_label_names", "coarse_label_names"),
    "train": ("data", "fine_labels", "coarse_labels"),
    "test": ("data", "fine_labels", "coarse_labels"),
}
NORMALIZATION = Normalization((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761), "photo")


class Cifar100(Source):
    """The train and test images of CIFAR-100 together, 600 per class; a domain is one of its 20 superclasses."""

    obtain = (
        f"It is downloaded from {URL} (169 MB) unless you pass that archive, the folder {FOLDER}, "
        f"or a folder that holds either of them, as source."
    )
    arguments = ""

    def read(self, path: Path | None, root: Path) -> Contents:
        """Read the archive or folder at `path`, or download the archive into ``root/downloads``."""
        if path is None:
            path = archives.download(URL, root / "downloads" / Path(URL).name, md5=MD5)
        with _opened(self.required(path)) as open_part:
            meta, *parts = (_checked(part, open_part(part), path) for part in FIELDS)
        names, supers = ([_text(name) for name in meta[field]] for field in FIELDS["meta"])
        domain: dict[int, int] = {}
        for part in parts:
            domain.update(zip(part["fine_labels"], part["coarse_labels"]))
        splits = packaged_splits(self.name)
        home = {name: part for part in PARTS for name in splits[part]}
        missing = sorted(set(home) - {names[label] for label in domain})
        if missing:
            raise DataError(f"{path} lacks the classes {', '.join(missing)}: {archives.GET_IT_AGAIN}")
        labels = [names.index(name) for name in sorted(home)]
        return Contents(
            [ClassInfo(names[i], supers[domain[i]], split=home[names[i]], count=IMAGES_PER_CLASS) for i in labels],
            (32, 32, 3),
            batches=_batches(parts, labels),
            origin=f"CIFAR-100, {URL}",
            normalization=NORMALIZATION,
        )


class CifarFS(Cifar100):
    """CIFAR-FS: the classes split at random."""

    name = "cifar-fs"
    description = "CIFAR-100 images 32x32, classes split at random (Bertinetto et al. 2019)"
    classes = "64 / 16 / 20"


class FC100(Cifar100):
    """FC100: the classes split by superclass, so that the test classes are unlike the training classes."""

    name = "fc100"
    description = "CIFAR-100 images 32x32, classes split by superclass (Oreshkin et al. 2018)"
    classes = "60 / 20 / 20"


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[str], Any]]:
    """A function that reads one of the pickles train, test and meta, from the archive or from the folder."""
    inside = path / Path(URL).name
    if inside.is_file() and not (path / FOLDER).is_dir():
        path = inside
    if path.is_file():
        archives.refuse_other_checksum(path, MD5)
        with archives.open_tar(path, [f"{FOLDER}/{part}" for part in FIELDS]) as open_member:
            yield lambda part: load_pickle(open_member(f"{FOLDER}/{part}"))
    else:
        folder = path / FOLDER if (path / FOLDER).is_dir() else path
        yield lambda part: load_pickle(folder / part)


def _checked(part: str, content: Any, path: Path) -> dict[str, Any]:
    """The content with names of fields as text (Python 2 and 3 pickle them differently), and all fields there."""
    content = {_text(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    lacking = [field for field in FIELDS[part] if field not in content]
    if lacking:
        raise DataError(f"{part!r} in {path} has no {', '.join(lacking)}: {archives.GET_IT_AGAIN}")
    if part != "meta":
        pixels, labels = content["data"], [*content["fine_labels"], *content["coarse_labels"]]
        # before anything is indexed: a crafted array of objects ends the process
        if type(pixels) is not np.ndarray or pixels.dtype != np.uint8 or not all(type(one) is int for one in labels):
            raise DataError(f"{part!r} in {path} holds pixels or labels of another type: {archives.GET_IT_AGAIN}")
        shape = pixels.shape
        if shape != (len(content["fine_labels"]), 3 * 32 * 32) or len(labels) != 2 * shape[0]:
            raise DataError(
                f"{part!r} in {path} holds pixels of shape {shape} and {len(labels)} labels: {archives.GET_IT_AGAIN}"
            )
    return content


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _batches(parts: list[dict[str, Any]], labels: list[int]) -> Iterator[Batch]:
    position = np.full(max(max(part["fine_labels"]) for part in parts) + 1, -1)
    position[labels] = np.arange(len(labels))
    for part in parts:
        of_image = position[np.asarray(part["fine_labels"])]
        for rows in np.array_split(np.arange(len(of_image)), max(1, len(of_image) // 5000)):
            planes = np.asarray(part["data"])[rows].reshape(-1, 3, 32, 32)
            yield planes.transpose(0, 2, 3, 1), of_image[rows]
