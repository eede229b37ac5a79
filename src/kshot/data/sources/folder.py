"""Folder: a user's own images, one folder a class."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from kshot import seeding
from kshot.data.images import try_images, unreadable
from kshot.data.sources.base import Source
from kshot.data.store import PARTS, ClassInfo, Part
from kshot.data.writing import Batch, Contents
from kshot.errors import ConfigError, DataError

BATCH = 256
SPLIT_FOLDERS: dict[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class Folder(Source):
    """Any tree of class folders: TREE/CLASS/**/IMAGE, or TREE/{train,val,test}/CLASS/**/IMAGE.

    size: images become squares of this side: the shorter side is resized, and the centre kept
    fractions: the share of the classes in train, val and test, where the tree has no such folders
    seed: which classes go where, in that case; a class that is added later does not reshuffle the others
    """

    name = "folder"
    description = "your own images, one folder a class, any format and size"
    classes = "yours"
    obtain = "Put the images of each class into a folder of their own, all of them into one folder."
    arguments = "--source PATH --name my-images"
    needs_name = True
    loads_paths = True

    def __init__(
        self, size: int = 84, fractions: tuple[float, float, float] = (0.64, 0.16, 0.2), seed: int = 0
    ) -> None:
        if size < 1:
            raise ConfigError(f"size is {size}, but an image has at least 1 pixel")
        if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ConfigError(f"fractions are {fractions}, but must be three positive numbers with the sum 1")
        self.size, self.fractions, self.seed = size, fractions, seed

    @classmethod
    def name_for(cls, path: Path) -> str:
        """The tree's own name with a fingerprint of its files; DataError where it is not a folder."""
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; write folder:PATH with the folder that holds the class folders")
        return f"{cls.name}-{re.sub('[^A-Za-z0-9._-]', '_', path.resolve().name)}-{fingerprint(path)}"

    def read(self, path: Path | None, root: Path) -> Contents:
        """List the images of every class; DataError where there are too few classes, or one without images."""
        tree = self.required(path)
        found = [(folder, part, image_files(folder)) for folder, part in self._class_folders(tree)]
        for folder, _, paths in found:
            if not paths:
                raise DataError(f"{folder} holds no images; add some, or remove the folder")
        _warn_of_others(tree, {path for _, _, paths in found for path in paths})
        return Contents(
            classes=[ClassInfo(folder.name, "all", part, len(paths)) for folder, part, paths in found],
            image_shape=(self.size, self.size, 3),
            batches=self._batches([paths for _, _, paths in found]),
            origin=f"folder {tree.resolve()}",
        )

    def _class_folders(self, tree: Path) -> list[tuple[Path, Part]]:
        folders = subfolders(tree)
        parts = {SPLIT_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_FOLDERS}
        if {"train", "test"} <= parts:
            return self._listed(tree, folders, carve_val="val" not in parts)
        least = 2 * len(PARTS)
        if len(folders) < least:
            raise DataError(
                f"{tree} has {len(folders)} class folders, and training needs at least {least}: two classes each to "
                f"train, to validate and to test on; add classes. To recognise a few classes of your own, take a "
                f"learner that was trained on other data: kshot classify"
            )
        return self._shared_out(folders, self.fractions)

    def _listed(self, tree: Path, folders: list[Path], carve_val: bool) -> list[tuple[Path, Part]]:
        """Classes as the folders train, val and test say; without val, some of the training classes validate."""
        strange = [folder.name for folder in folders if folder.name.lower() not in SPLIT_FOLDERS]
        if strange:
            raise DataError(
                f"{tree} has the folders train and test, and also {', '.join(strange)}; move them elsewhere"
            )
        chosen = [(own, SPLIT_FOLDERS[folder.name.lower()]) for folder in folders for own in subfolders(folder)]
        if not carve_val:
            return chosen
        train, val, _ = self.fractions
        shared = self._shared_out(
            [own for own, part in chosen if part == "train"], (train / (train + val), val / (train + val), 0)
        )
        return shared + [(own, part) for own, part in chosen if part == "test"]

    def _shared_out(self, folders: list[Path], fractions: tuple[float, float, float]) -> list[tuple[Path, Part]]:
        shuffled = sorted(folders, key=lambda folder: int(seeding.key("folder", self.seed, folder.name)))
        val, test = (max(2, round(share * len(folders))) if share else 0 for share in fractions[1:])
        if len(folders) < val + test + 2:
            raise DataError(
                f"{len(folders)} classes are too few: {val} would validate, {test} would test, and at least 2 must be "
                f"left to train; add classes, or choose other fractions"
            )
        home: dict[Path, Part] = dict.fromkeys(shuffled, "train")
        home.update(dict.fromkeys(shuffled[:val], "val"))
        home.update(dict.fromkeys(shuffled[val : val + test], "test"))
        return sorted(home.items())

    def _batches(self, files: list[list[Path]]) -> Iterator[Batch]:
        flat = [path for paths in files for path in paths]
        labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files])
        failures: list[str] = []
        for first in range(0, len(flat), BATCH):
            arrays, failed = try_images(flat[first : first + BATCH], self.size)
            failures += failed
            if not failures:  # after a failure the rest is read only to name all bad files at once
                yield np.stack(arrays), labels[first : first + BATCH]
        if failures:
            raise unreadable(failures)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed ({error.strerror}); name a folder that exists and that you may read"
        ) from error


def image_files(folder: Path) -> list[Path]:
    """All files below a folder whose suffix is an image format's, sorted, without hidden ones."""
    suffixes = Image.registered_extensions()
    return [path for path in _visible(folder) if path.is_file() and path.suffix.lower() in suffixes]


def _visible(folder: Path) -> list[Path]:
    """All that lies below a folder, sorted, without what is hidden; DataError for a link to what is gone."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    for path in found:
        if not path.exists():
            raise DataError(f"{path} is a link to a file that is gone; remove it, or put the file back")
    return found


def _warn_of_others(tree: Path, images: set[Path]) -> None:
    others = [path for path in _visible(tree) if path.is_file() and path not in images]
    if others:
        warnings.warn(f"{len(others)} files in {tree} are no images and are left out, e.g. {others[0]}", stacklevel=3)


def fingerprint(tree: Path) -> str:
    """Ten hexadecimal digits that change when a file of the tree is added, removed, renamed or written."""
    digest = hashlib.sha256(str(tree.resolve()).encode())
    for path in _visible(tree):
        state = os.stat(path)
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:10]
