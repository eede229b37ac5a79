"""The one prepared form of every dataset: a folder with images.npy, memory-mapped when it is used, and meta.json.

Rows are ordered by split (train, val, test) and then by class, so that every split, and train and val together, is one
contiguous slice of one array.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray
from tqdm import tqdm

from kshot.data.classes import PARTS, ClassInfo, by_split, first_rows, refuse_overlap
from kshot.data.dataset import Dataset, Normalization
from kshot.errors import DataError

FORMAT = 1
ROOT_VARIABLE = "KSHOT_ROOT"


@dataclass(frozen=True)
class Meta:
    """The content of meta.json, with the classes in the order of the rows."""

    classes: list[ClassInfo]
    shape: tuple[int, ...]
    sha256: str
    normalization: Normalization
    tasks_within_domain: bool
    origin: str


@dataclass(frozen=True)
class Summary:
    """Where a prepared dataset came from, its classes as "train / val / test", and its size."""

    origin: str
    classes: str
    size_bytes: int


def cache_root(root: Path | str | None = None) -> Path:
    """The folder of all prepared datasets: `root`, else $KSHOT_ROOT, else the cache folder of this platform."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or platformdirs.user_cache_dir("kshot")).expanduser()


def is_prepared(name: str, root: Path | str | None = None) -> bool:
    """Whether the dataset is there, complete."""
    return (cache_root(root) / name / "meta.json").is_file()


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Open a prepared dataset, with its images memory-mapped.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    folder = cache_root(root) / name
    meta = _read_meta(name, folder)
    return Dataset.from_rows(
        name,
        _open_images(folder, meta.shape),
        classes=meta.classes,
        normalization=meta.normalization,
        tasks_within_domain=meta.tasks_within_domain,
    )


def verify(name: str, root: Path | str | None = None) -> str:
    """Read a prepared dataset through and return one line about it.

    Raises
    ------
    DataError
        If the checksum, the counts or the splits differ from what was prepared.
    """
    folder = cache_root(root) / name
    meta = _read_meta(name, folder)
    images = _open_images(folder, meta.shape)
    refuse_overlap(name, meta.classes)
    if sum(info.count for info in meta.classes) != len(images):
        raise DataError(_damaged(folder, "the images of the classes do not add up"))
    if read_through(name, folder / "images.npy", classes=meta.classes) != meta.sha256:
        raise DataError(_damaged(folder, "the checksum of images.npy differs"))
    sizes = Counter(info.split for info in meta.classes)
    parts = ", ".join(f"{sizes[part]} {part}" for part in PARTS)
    return f"{name}: {len(images)} images, classes: {parts}; checksum, counts and splits are right"


def summary(name: str, root: Path | str | None = None) -> Summary:
    """The line of a prepared dataset in ``kshot data list``."""
    folder = cache_root(root) / name
    meta = _read_meta(name, folder)
    sizes = Counter(info.split for info in meta.classes)
    return Summary(
        origin=meta.origin,
        classes=" / ".join(str(sizes[part]) for part in PARTS),
        size_bytes=(folder / "images.npy").stat().st_size,
    )


def _damaged(folder: Path, what: str) -> str:
    return f"{folder} is damaged: {what}; prepare it again with --overwrite"


def _read_meta(name: str, folder: Path) -> Meta:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta["format"] != FORMAT:
            raise DataError(
                f"{folder} was prepared in format {meta['format']}, and this version of kshot reads format {FORMAT}; "
                f"prepare it again with --overwrite"
            )
        stored = meta["normalization"]
        return Meta(
            classes=by_split(map(ClassInfo.from_json, meta["classes"])),
            shape=tuple(meta["shape"]),
            sha256=meta["sha256"],
            normalization=Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["augment"]),
            tasks_within_domain=meta["tasks_within_groups"],
            origin=meta["origin"],
        )
    except FileNotFoundError:
        raise DataError(f"{name!r} is not prepared in {folder.parent}; prepare it: kshot data prepare {name}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(_damaged(folder, f"meta.json cannot be read ({error!r})")) from error


def _open_images(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(_damaged(folder, f"images.npy cannot be read ({error})")) from error
    if images.shape != shape or images.dtype != np.uint8:
        raise DataError(_damaged(folder, f"images.npy holds {images.dtype} {images.shape}, not uint8 {shape}"))
    return images


def read_through(name: str, path: Path, *, classes: Sequence[ClassInfo]) -> str:
    """The sha256 of images.npy.

    Raises
    ------
    DataError
        If two splits hold the same images under two class names.
    """
    images = np.load(path, mmap_mode="r")
    homes: dict[bytes, ClassInfo] = {}
    with open(path, "rb") as file, tqdm(total=len(images), desc=f"check {name}", unit=" images", delay=2) as progress:
        digest = hashlib.sha256(file.read(images.offset))
        for info, first in zip(classes, first_rows([info.count for info in classes])):
            members = images[first : first + info.count]
            digest.update(members)
            pictures = sorted(hashlib.blake2b(image, digest_size=16).digest() for image in members)
            twin = homes.setdefault(hashlib.sha256(b"".join(pictures)).digest(), info)
            if twin.split != info.split:
                raise DataError(
                    f"{name}: class {twin.name!r} in {twin.split} and class {info.name!r} in {info.split} hold the "
                    f"same images; the splits of few-shot data must not overlap: remove one of the two"
                )
            progress.update(info.count)
    return digest.hexdigest()
