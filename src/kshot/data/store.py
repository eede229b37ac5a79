"""The one prepared form of every dataset: a folder with images.npy, memory-mapped when it is used, and meta.json.

Rows are ordered by split (train, val, test) and then by class, so that every split, and train and val together, is one
contiguous slice of one array.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from numpy.typing import NDArray
from tqdm import tqdm

from kshot.data.dataset import Dataset, Normalization, Split
from kshot.errors import DataError

FORMAT = 1
ROOT_VARIABLE = "KSHOT_ROOT"

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ClassInfo:
    """One class: its name, its domain (alphabet, superclass, script), its split and how many images it has."""

    name: str
    domain: str
    split: Part
    count: int

    def as_json(self) -> dict[str, Any]:
        """The class as meta.json has it, whose format calls the domain a group."""
        return {"name": self.name, "group": self.domain, "split": self.split, "count": self.count}

    @classmethod
    def from_json(cls, info: Mapping[str, Any]) -> ClassInfo:
        """What `as_json` made."""
        return cls(info["name"], info["group"], info["split"], info["count"])


@dataclass(frozen=True)
class Meta:
    """What meta.json says about a prepared dataset."""

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
    """A dataset that was prepared; its images are memory-mapped. Raises DataError where it is missing or damaged."""
    folder = cache_root(root) / name
    meta = _read_meta(name, folder)
    images = _open_images(folder, meta.shape)

    def split(split_name: str, parts: Sequence[Part]) -> Split:
        chosen = [info for info in meta.classes if info.split in parts]
        first = sum(info.count for info in meta.classes if PARTS.index(info.split) < PARTS.index(parts[0]))
        counts = np.asarray([info.count for info in chosen], np.int64)
        return Split(
            name=split_name,
            dataset=name,
            images=images[first : first + int(counts.sum())],
            counts=counts,
            class_names=tuple(info.name for info in chosen),
            domains=tuple(info.domain for info in chosen),
            normalization=meta.normalization,
            tasks_within_domain=meta.tasks_within_domain,
        )

    train, val, test = (split(part, [part]) for part in PARTS)
    return Dataset(name, train, val, test, train_val=split("train+val", ["train", "val"]))


def verify(name: str, root: Path | str | None = None) -> str:
    """Read a prepared dataset through and return one line about it.

    Raises DataError where the checksum, the counts or the splits are not what they were when it was prepared.
    """
    folder = cache_root(root) / name
    meta = _read_meta(name, folder)
    images = _open_images(folder, meta.shape)
    refuse_overlap(name, meta.classes)
    if sum(info.count for info in meta.classes) != len(images):
        raise DataError(_damaged(folder, "the images of the classes do not add up"))
    if read_through(name, folder / "images.npy", meta.classes) != meta.sha256:
        raise DataError(_damaged(folder, "the checksum of images.npy differs"))
    sizes = Counter(info.split for info in meta.classes)
    parts = ", ".join(f"{sizes[part]} {part}" for part in PARTS)
    return f"{name}: {len(images)} images, classes: {parts}; checksum, counts and splits are right"


def summary(name: str, root: Path | str | None = None) -> Summary:
    """What ``kshot data list`` shows of a prepared dataset."""
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
            classes=sorted(map(ClassInfo.from_json, meta["classes"]), key=lambda info: PARTS.index(info.split)),
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


def refuse_overlap(name: str, classes: Sequence[ClassInfo]) -> None:
    """Raise DataError where a class is in two splits or empty, or a split has too few classes for a task."""
    homes: dict[str, str] = {}
    for info in classes:
        if info.name in homes:
            raise DataError(
                f"{name}: class {info.name!r} is in {homes[info.name]} and in {info.split}; the splits of few-shot "
                f"data hold different classes, and a class has one entry: correct the lists or the folders"
            )
        homes[info.name] = info.split
        if info.count < 1:
            raise DataError(f"{name}: class {info.name!r} has no images; add some, or remove the class")
    for part in PARTS:
        if sum(info.split == part for info in classes) < 2:
            raise DataError(f"{name}: {part} has fewer than 2 classes, and a task needs at least 2 of them")


def starts(classes: Sequence[ClassInfo]) -> NDArray[np.int64]:
    """(classes,) first row of each class."""
    return np.concatenate([[0], np.cumsum([info.count for info in classes])[:-1]]).astype(np.int64)


def read_through(name: str, path: Path, classes: Sequence[ClassInfo]) -> str:
    """The sha256 of images.npy; raises DataError where two splits hold the same images under two class names."""
    images = np.load(path, mmap_mode="r")
    homes: dict[bytes, ClassInfo] = {}
    with open(path, "rb") as file, tqdm(total=len(images), desc=f"check {name}", unit=" images", delay=2) as progress:
        digest = hashlib.sha256(file.read(images.offset))
        for info, first in zip(classes, starts(classes)):
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
