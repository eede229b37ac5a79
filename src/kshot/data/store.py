"""The one prepared form of every dataset: a folder with images.npy, memory-mapped when it is used, and meta.json.

Rows are ordered by split (train, val, test) and then by class, so that every split, and train and val together, is one
contiguous slice of one array.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import random
import socket
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kshot.data.classes import PARTS, ClassInfo, by_split, first_rows, refuse_overlap
from kshot.data.dataset import Dataset, Normalization
from kshot.errors import DataError
from kshot.files import cache_root, is_running, read_json

FORMAT = 1
_LARGEST = 1 << 28  # bytes of meta.json
_BLOCK = 1 << 20  # bytes of images.npy that share a checksum
_SAMPLED = 16  # blocks that are checked whenever a dataset is opened


@dataclass(frozen=True)
class Meta:
    """The content of meta.json, with the classes in the order of the rows.

    Attributes
    ----------
    classes, shape, sha256, normalization, tasks_within_domain, origin
        As they were written.
    identity
        Identifies images, classes and normalization together, and not where they came from.
    blocks
        The CRC of each block of images.npy; none in a dataset that an earlier version of kshot prepared.
    """

    classes: list[ClassInfo]
    shape: tuple[int, ...]
    sha256: str
    normalization: Normalization
    tasks_within_domain: bool
    origin: str
    identity: str
    blocks: Sequence[int]


@dataclass(frozen=True)
class Summary:
    """Where a prepared dataset came from, its classes as "train / val / test", and its size."""

    origin: str
    classes: str
    size_bytes: int


def _folder(name: str, root: Path | str | None) -> Path:
    """The folder of a prepared dataset; DataError for what is a path and no name."""
    if not name or name in (".", "..") or "\0" in name or any(slash in name for slash in "/\\"):
        raise DataError(f"{name!r} is no name of a dataset; kshot data list shows them, and --root names their folder")
    return cache_root(root) / name


def is_prepared(name: str, root: Path | str | None = None) -> bool:
    """Whether the dataset is there, complete; what a killed process left halfway is put into its place first."""
    folder = _folder(name, root)
    recover(folder)
    return (folder / "meta.json").is_file()


def load(name: str, root: Path | str | None = None) -> Dataset:
    """Open a prepared dataset, with its images memory-mapped.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    folder = _folder(name, root)
    recover(folder)
    meta = _read_meta(name, folder)
    images = _open_images(folder, meta.shape)
    _check_blocks(folder, meta.blocks, at_most=_SAMPLED)
    return Dataset.from_rows(
        name,
        images,
        classes=meta.classes,
        normalization=meta.normalization,
        tasks_within_domain=meta.tasks_within_domain,
        checksum=meta.identity,
    )


def verify(name: str, root: Path | str | None = None) -> str:
    """Read a prepared dataset through and return one line about it.

    Raises
    ------
    DataError
        If the checksum, the counts or the splits differ from what was prepared.
    """
    folder = _folder(name, root)
    meta = _read_meta(name, folder)
    images = _open_images(folder, meta.shape)
    refuse_overlap(name, meta.classes)
    if sum(info.count for info in meta.classes) != len(images):
        raise DataError(_damaged(folder, "the images of the classes do not add up"))
    if read_through(name, folder / "images.npy", classes=meta.classes) != meta.sha256:
        raise DataError(_damaged(folder, "the checksum of images.npy differs"))
    _check_blocks(folder, meta.blocks)
    sizes = Counter(info.split for info in meta.classes)
    parts = ", ".join(f"{sizes[part]} {part}" for part in PARTS)
    return f"{name}: {len(images)} images, classes: {parts}; checksum, counts and splits are right"


def summary(name: str, root: Path | str | None = None) -> Summary:
    """The line of a prepared dataset in ``kshot data list``."""
    folder = _folder(name, root)
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
        meta = read_json(folder / "meta.json", limit=_LARGEST)
        if meta["format"] != FORMAT:
            raise DataError(
                f"{folder} was prepared in format {meta['format']}, and this version of kshot reads format {FORMAT}; "
                f"prepare it again with --overwrite"
            )
        if "checksum" in meta and meta["checksum"] != checksum_of(meta):
            raise DataError(_damaged(folder, "the checksum of meta.json differs"))
        stored = meta["normalization"]
        content = Meta(
            classes=by_split(map(ClassInfo.from_json, meta["classes"])),
            shape=tuple(meta["shape"]),
            sha256=meta["sha256"],
            normalization=Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["augment"]),
            tasks_within_domain=meta["tasks_within_groups"],
            origin=meta["origin"],
            identity=_identity(meta),
            blocks=meta.get("blocks", []),
        )
        faults = list(_faults(content))
    except FileNotFoundError:
        raise DataError(f"{name!r} is not prepared in {folder.parent}; prepare it: kshot data prepare {name}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(_damaged(folder, f"meta.json cannot be read ({error!r})")) from error
    if faults:
        raise DataError(_damaged(folder, f"meta.json says that {'; '.join(faults)}"))
    return content


def checksum_of(meta: Mapping[str, Any]) -> str:
    """What identifies the content of meta.json, but for the entry that holds it."""
    plain = {name: value for name, value in meta.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _identity(meta: Mapping[str, Any]) -> str:
    """What the numbers that are measured on the dataset depend on."""
    names = ("shape", "sha256", "normalization", "tasks_within_groups", "classes")
    return checksum_of({name: meta[name] for name in names})[:16]


def _faults(meta: Meta) -> Iterator[str]:
    """What cannot be true of a prepared dataset."""
    if len(meta.shape) != 4 or not all(type(size) is int and size > 0 for size in meta.shape):
        yield f"the images are {meta.shape!r:.60}"
        return
    form = meta.normalization
    for name, values, least in (("mean", form.mean, -math.inf), ("deviation", form.std, 0.0)):
        numbers = [value for value in values if type(value) in (int, float) and least < value < math.inf]
        if len(numbers) != len(values) or len(values) != meta.shape[-1] or max(numbers) > 1:
            yield f"the {name} of the channels is {values!r:.60}"
    if form.augment not in ("photo", "none") or type(meta.tasks_within_domain) is not bool:
        yield "augment or tasks_within_groups is something else than kshot writes"
    if not isinstance(meta.sha256, str) or not isinstance(meta.origin, str):
        yield "sha256 or origin is no text"
    for info in meta.classes:
        if not isinstance(info.name, str) or not isinstance(info.domain, str) or type(info.count) is not int:
            yield f"a class is {info!r:.60}"
    if not all(type(block) is int for block in meta.blocks):
        yield "the checksums of the blocks are no whole numbers"


def _open_images(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    path = folder / "images.npy"
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        images = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(_damaged(folder, f"images.npy cannot be read ({' '.join(str(error).split())})")) from error
    if images.shape != shape or images.dtype != np.uint8 or not images.flags.c_contiguous:
        order = "" if images.flags.c_contiguous else " in Fortran's order"
        raise DataError(_damaged(folder, f"images.npy holds {images.dtype} {images.shape}{order}, not uint8 {shape}"))
    if path.stat().st_size != images.offset + images.nbytes:
        raise DataError(_damaged(folder, "images.npy is longer than its images"))
    return images


def block_sums(path: Path) -> list[int]:
    """The CRC of each block of a file."""
    with open(path, "rb") as file:
        return [zlib.crc32(block) for block in iter(lambda: file.read(_BLOCK), b"")]


def _check_blocks(folder: Path, blocks: Sequence[int], *, at_most: int | None = None) -> None:
    """DataError if a block of images.npy is not what was written; with `at_most`, some that are drawn at random."""
    numbers = list(range(len(blocks)))
    if at_most is not None and at_most < len(numbers):
        numbers = sorted(random.SystemRandom().sample(numbers, at_most))
    with open(folder / "images.npy", "rb") as file:
        for number in numbers:
            file.seek(number * _BLOCK)
            if zlib.crc32(file.read(_BLOCK)) != blocks[number]:
                raise DataError(_damaged(folder, f"the checksum of images.npy differs from byte {number * _BLOCK} on"))


def recover(target: Path) -> None:
    """Put a dataset into its place if the process that was about to replace it was killed halfway.

    `kshot.data.writing.write` moves the previous dataset away and then the new one into its place. A kill in between
    leaves both, whole, in the workspace: the new one is taken, since its preparation had succeeded.
    """
    if target.exists():
        return
    host = socket.gethostname()
    for workspace in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(host)}.*.partial"):
        process = workspace.name.removeprefix(f".{target.name}.{host}.").split(".")[0]
        if not process.isdigit() or is_running(int(process)) or not (workspace / "previous").is_dir():
            continue
        whole = workspace / ("new" if (workspace / "new" / "meta.json").is_file() else "previous")
        with contextlib.suppress(OSError):  # another process does the same
            os.rename(whole, target)
        return


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
