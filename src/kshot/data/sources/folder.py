"""Folder: a user's own images, one folder per class."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from kshot.data.classes import FRACTIONS, PARTS, ClassInfo, Part, check_fractions, listed, share_out
from kshot.data.folders import fingerprint, image_files, named_split, subfolders, visible
from kshot.data.images import (
    ValueRange,
    check_value_range,
    find_value_range,
    nearly_black,
    try_images,
    unreadable,
)
from kshot.data.sources.base import Source
from kshot.data.writing import Batch, Contents
from kshot.errors import ConfigError, DataError, check_choice

BATCH = 256
Nested = Literal["refuse", "join", "classes"]


@dataclass(frozen=True)
class ImageClass:
    """A class with its domain, its image files and its split; None while it is yet to be chosen."""

    name: str
    domain: str
    files: list[Path]
    split: Part | None


class Folder(Source):
    """Any tree of class folders: TREE/CLASS/**/IMAGE, or TREE/{train,val,test}/CLASS/**/IMAGE.

    Parameters
    ----------
    size
        Side of the images in pixels: the shorter side is resized, and the centre kept.
    fractions
        Shares of the classes in train, val and test, if the tree has no such folders.
    seed
        Which classes go where, in that case; a class that is added later does not reshuffle the others.
    min_images
        Leave out classes with fewer images, and say which; None to refuse folders without any image.
    value_range
        Lowest and highest value of images of more than 8 bits per channel, which become black and white; None for those
        that occur in the training classes.
    nested
        What to do with a folder that holds no images but several folders of images: "refuse" it, "join" them into one
        class, or take them as "classes" of one domain.
    """

    name = "folder"
    description = "your own images, one folder per class, any format and size"
    classes = "yours"
    obtain = "Put the images of each class into its own folder, and all these folders into one folder."
    arguments = "--source PATH --name my-images"
    needs_name = True
    loads_paths = True

    def __init__(
        self,
        size: int = 84,
        *,
        fractions: tuple[float, float, float] = FRACTIONS,
        seed: int = 0,
        min_images: int | None = None,
        value_range: tuple[float, float] | None = None,
        nested: Nested = "refuse",
    ) -> None:
        if size < 1:
            raise ConfigError(f"size is {size}, but an image has at least 1 pixel")
        check_fractions(fractions)
        if min_images is not None and min_images < 1:
            raise ConfigError(f"min_images is {min_images}, but must be at least 1")
        check_value_range(value_range)
        check_choice("nested", nested, get_args(Nested))
        self.size, self.fractions, self.seed = size, fractions, seed
        self.min_images, self.value_range, self.nested = min_images, value_range, nested

    @classmethod
    def name_for(cls, path: Path) -> str:
        """The tree's own name with a fingerprint of its files; DataError if it is not a folder."""
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; write folder:PATH with the folder that holds the class folders")
        return f"{cls.name}-{re.sub('[^A-Za-z0-9._-]', '_', path.resolve().name)}-{fingerprint(path)}"

    def read(self, path: Path | None, root: Path) -> Contents:
        """List the images of every class; DataError if there are too few classes, or folders without images."""
        tree = self.required(path)
        found = self._classes(tree)
        training, others = (
            [file for one in found if (one.split == "train") == wanted for file in one.files]
            for wanted in (True, False)
        )
        value_range = self.value_range or find_value_range(training) or find_value_range(others)
        return Contents(
            [ClassInfo(one.name, one.domain, split=_known(one.split), count=len(one.files)) for one in found],
            (self.size, self.size, 3),
            batches=self._batches([one.files for one in found], value_range),
            origin=f"folder {tree.resolve()}",
        )

    def _classes(self, tree: Path) -> list[ImageClass]:
        """Every class with its split, as the tree says or else by `fractions` and `seed`."""
        folders = subfolders(tree)
        parts = {part for part in map(named_split, folders) if part is not None}
        if {"train", "test"} <= parts:
            return self._split_by_folders(tree, folders, carve_val="val" not in parts)
        if len(parts) > 1:
            named = ", ".join(folder.name for folder in folders if named_split(folder) is not None)
            raise DataError(
                f"{tree} has the folders {named}, which read as splits, but not both train and test; add the one that "
                f"is missing, or rename them if they are classes"
            )
        classes = self._with_images(tree, dict.fromkeys(folders))
        least = 2 * len(PARTS)
        if len(classes) < least:
            raise DataError(
                f"{tree} has {len(classes)} class folders, and training needs at least {least}: two classes each to "
                f"train, to validate and to test on; add classes. To recognise a few classes of your own, take a "
                f"learner that was trained on other data: kshot classify"
            )
        return self._shared_out(classes, val=self.fractions[1], test=self.fractions[2])

    def _split_by_folders(self, tree: Path, folders: list[Path], *, carve_val: bool) -> list[ImageClass]:
        """Classes as the folders train, val and test say; without val, some of the training classes validate."""
        strange = [folder.name for folder in folders if named_split(folder) is None]
        if strange:
            raise DataError(
                f"{tree} has the folders train and test, and also {', '.join(strange)}; move them elsewhere"
            )
        inner = {path: named_split(folder) for folder in folders for path in subfolders(folder)}
        classes = self._with_images(tree, inner)
        if not carve_val:
            return classes
        train, val, _ = self.fractions
        training = [one for one in classes if one.split == "train"]
        testing = [one for one in classes if one.split == "test"]
        return self._shared_out(training, val=val / (train + val), test=0) + testing

    def _shared_out(self, classes: list[ImageClass], *, val: float, test: float) -> list[ImageClass]:
        home = share_out([one.name for one in classes], val=val, test=test, seed=self.seed)
        return [replace(one, split=home[one.name]) for one in classes]

    def _with_images(self, tree: Path, folders: Mapping[Path, Part | None]) -> list[ImageClass]:
        """The classes of some folders that have enough images; the others are refused or left out, all at once."""
        found = self._listed(folders)
        _warn_of_others(tree, {file for one in found for file in one.files})
        least = self.min_images or 1
        small = [one for one in found if len(one.files) < least]
        if small and self.min_images is None:
            raise DataError(
                f"{len(small)} folders hold no images: {listed(one.name for one in small)}; add some, remove the "
                f"folders, or leave such classes out: kshot data prepare folder --min-images 1"
            )
        if small:
            sizes = listed((f"{one.name} ({len(one.files)})" for one in small), len(small))
            warnings.warn(
                f"{len(small)} of {len(found)} classes have fewer than {least} images and are left out: {sizes}",
                stacklevel=4,
            )
        return [one for one in found if len(one.files) >= least]

    def _listed(self, folders: Mapping[Path, Part | None]) -> list[ImageClass]:
        """The classes of some folders with their files, folders of folders treated as `nested` says."""
        classes, of_folders = [], []
        for folder, split in folders.items():
            files = image_files(folder)
            inner = sorted({folder / file.relative_to(folder).parts[0] for file in files})
            if len(inner) < 2 or any(file.parent == folder for file in files) or self.nested == "join":
                classes.append(ImageClass(folder.name, "all", files, split))
                continue
            of_folders.append(f"{folder} with {listed((path.name for path in inner), 3)}")
            classes += [
                ImageClass(f"{folder.name}/{path.name}", folder.name, image_files(path), split) for path in inner
            ]
        if of_folders and self.nested == "refuse":
            raise DataError(
                f"{len(of_folders)} folders hold no images, but several folders: {listed(of_folders, 3)}. "
                f"If each of the inner folders is a class, prepare them with --nested classes, and if they are parts "
                f"of one class, with --nested join: kshot data prepare folder --help; or hand over the folder that "
                f"holds the class folders"
            )
        return classes

    def _batches(self, files: list[list[Path]], value_range: ValueRange | None) -> Iterator[Batch]:
        flat = [path for paths in files for path in paths]
        labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files])
        failures: list[str] = []
        black: list[Path] = []
        for first in range(0, len(flat), BATCH):
            paths = flat[first : first + BATCH]
            arrays, failed = try_images(paths, self.size, value_range=value_range)
            failures += failed
            if not failures:  # after a failure the rest is read only to name all bad files at once
                black += [path for path, is_black in zip(paths, nearly_black(arrays)) if is_black]
                yield np.stack(arrays), labels[first : first + BATCH]
        if failures:
            raise unreadable(failures)
        _warn_of_black(black, len(flat), value_range)


def _known(split: Part | None) -> Part:
    assert split is not None, "every class has a split once the tree was read"
    return split


def _warn_of_others(tree: Path, images: set[Path]) -> None:
    others = [path for path in visible(tree) if path.is_file() and path not in images]
    if others:
        warnings.warn(f"{len(others)} files in {tree} are no images and are left out, e.g. {others[0]}", stacklevel=5)


def _warn_of_black(black: list[Path], images: int, value_range: ValueRange | None) -> None:
    if black:
        low, high = value_range or (0, 0)
        read_as = f"; values from {low:g} to {high:g} became 0 to 255" if value_range else ""
        warnings.warn(
            f"{len(black)} of {images} images are nearly black: {listed(black)}{read_as}. Look at them; for images of "
            f"more than 8 bits per channel, kshot data prepare folder --value-range LOW HIGH states their range",
            stacklevel=2,
        )
