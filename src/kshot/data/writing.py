"""Writing a prepared dataset: batch after batch into a temporary folder, which is renamed once it is complete."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kshot import files
from kshot.data import store
from kshot.data.arrays import channel_moments, training_rows
from kshot.data.classes import ClassInfo, by_split, first_rows, refuse_overlap
from kshot.data.dataset import Normalization
from kshot.errors import DataError

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Contents:
    """What a source finds in the publisher's files, before any pixel is written.

    Parameters
    ----------
    classes
        Every class with the number of images it will have, in any order.
    image_shape
        (H, W, C) of every image.
    batches
        Yields images (M, H, W, C) uint8 with labels (M,), positions in `classes`; in any order, a few at a time.
    origin
        Where the images come from, one line for the reader of meta.json.
    augment
        What training images may go through, as in `Normalization`.
    normalization
        None to measure it on the training images.
    tasks_within_domain
        Whether all classes of a task come from one domain.
    """

    classes: Sequence[ClassInfo]
    image_shape: tuple[int, int, int]
    _: KW_ONLY
    batches: Iterable[Batch]
    origin: str
    augment: Literal["photo", "none"] = "photo"
    normalization: Normalization | None = None
    tasks_within_domain: bool = False


def write(name: str, contents: Contents, *, root: Path | str | None = None, overwrite: bool = False) -> Path:
    """Write a dataset into the cache folder and return its folder.

    Everything goes to a temporary folder which is renamed at the end: a killed or failed preparation leaves nothing
    that looks prepared, and with `overwrite` the previous dataset stays until then. Memory is bounded by one batch.

    Raises
    ------
    DataError
        If the dataset is there already, splits overlap, counts differ from what the source promised, or the disk is
        too small.
    """
    target = files.cache_root(root) / name
    store.recover(target)
    if target.exists() and not overwrite:
        raise DataError(f"{target} is already prepared; load it, or replace it with --overwrite")
    classes = by_split(contents.classes)
    refuse_overlap(name, classes)
    shape = (sum(info.count for info in classes), *contents.image_shape)
    with _workspace(target, int(np.prod(shape))) as workspace:
        folder = workspace / "new"
        folder.mkdir()
        path = folder / "images.npy"
        _write_images(name, contents, classes, shape, path)
        images = np.load(path, mmap_mode="r")
        meta = {
            "format": store.FORMAT,
            "name": name,
            "origin": contents.origin,
            "shape": list(shape),
            "sha256": store.read_through(name, path, classes=classes),
            "normalization": asdict(contents.normalization or _measured(images, classes, contents.augment)),
            "tasks_within_groups": contents.tasks_within_domain,
            "classes": [info.as_json() for info in classes],
            "blocks": store.block_sums(path),
        }
        files.write_json(folder / "meta.json", meta | {"checksum": store.checksum_of(meta)})
        del images
        if overwrite and target.exists():
            os.rename(target, workspace / "previous")
        os.rename(folder, target)  # `store.recover` does it if this process is killed in between
    return target


def _measured(
    images: NDArray[np.uint8], classes: Sequence[ClassInfo], augment: Literal["photo", "none"]
) -> Normalization:
    """The normalization of the training images."""
    mean, std = channel_moments(training_rows(images, classes))
    return Normalization(mean, std, augment)


def _write_images(
    name: str, contents: Contents, classes: Sequence[ClassInfo], shape: tuple[int, ...], path: Path
) -> None:
    """Write every batch at the rows of its classes; the counts must come out as the source promised."""
    starts = {info.name: first for info, first in zip(classes, first_rows([info.count for info in classes]))}
    next_row = np.asarray([starts[info.name] for info in contents.classes], np.int64)
    last_row = next_row + np.asarray([info.count for info in contents.classes])
    with open(path, "wb") as file, tqdm(total=shape[0], desc=f"prepare {name}", unit=" images", delay=2) as progress:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset = file.tell()
        for images, labels in contents.batches:
            if images.shape[1:] != contents.image_shape or images.dtype != np.uint8:
                raise DataError(f"{name}: images are {images.dtype} {images.shape[1:]}, not uint8 {shape[1:]}")
            if len(labels) != len(images) or not np.isin(labels, np.arange(len(next_row))).all():
                raise DataError(f"{name}: {len(images)} images need as many labels in 0..{len(next_row) - 1}: {labels}")
            counts = np.bincount(labels, minlength=len(next_row))
            _refuse_surplus(name, contents.classes, next_row + counts, last_row)
            _write_batch(file, offset, images, labels, next_row)
            next_row += counts
            progress.update(len(labels))
        file.flush()
        os.fsync(file.fileno())
    for info, missing in zip(contents.classes, last_row - next_row):
        if missing:
            raise DataError(
                f"{name}: class {info.name!r} has {info.count - missing} images, and {info.count} were expected; "
                f"the files are incomplete or of another version: get them again"
            )


def _refuse_surplus(
    name: str, classes: Sequence[ClassInfo], next_row: NDArray[np.int64], last_row: NDArray[np.int64]
) -> None:
    if (next_row > last_row).any():
        info = classes[int(np.argmax(next_row > last_row))]
        raise DataError(
            f"{name}: class {info.name!r} has more than the {info.count} images that were expected; "
            f"the files are of another version: get them again"
        )


def _write_batch(
    file: BinaryIO, offset: int, images: NDArray[np.uint8], labels: NDArray[np.int64], next_row: NDArray[np.int64]
) -> None:
    # Plain writes and not a writable memory map: on a full disk a write raises OSError, a memory map kills the process.
    order = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for first, rows in zip(firsts, np.split(order, firsts[1:])):
        file.seek(offset + int(next_row[labels[order[first]]]) * images[0].nbytes)
        file.write(np.ascontiguousarray(images[rows]).data)


@contextmanager
def _workspace(target: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder next to `target` that is removed in any case at the end; leftovers of killed processes go first."""
    root, prefix = target.parent, f".{target.name}.{socket.gethostname()}."
    try:
        root.mkdir(parents=True, exist_ok=True)
        store.recover(target)
        for leftover in root.glob(f"{prefix}*.partial"):
            if not files.is_running(int(leftover.name[len(prefix) :].split(".")[0])):
                shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(root).free
        workspace = Path(tempfile.mkdtemp(".partial", f"{prefix}{os.getpid()}.", root))
    except OSError as error:
        raise DataError(f"cannot write to {root}: {files.refusal(error)} (--root)") from error
    try:
        if free < needed_bytes:
            raise DataError(
                f"{target.name} needs {needed_bytes / 1e9:.2f} GB in {root}, and {free / 1e9:.2f} GB are free; "
                f"free some space, or choose another folder with --root or ${files.ROOT_VARIABLE}"
            )
        yield workspace
    except OSError as error:
        raise DataError(f"preparing {target.name} failed, and nothing was changed: {files.refusal(error)}") from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
