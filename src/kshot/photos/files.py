"""The photographs of a person: where they are, and what was said of them."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kshot.data.classes import SHOWN
from kshot.data.folders import image_files, subfolders, visible
from kshot.errors import DataError
from kshot.files import csv_table, write_text

NONE = "none of these"
_LEFT_BY_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}


@dataclass(frozen=True, eq=False)
class Recognised:
    """The scores of each of N classes for each of M images, before anything is known of how far to trust them.

    Attributes
    ----------
    paths, class_names, images
        As for `Predictions`.
    scores
        (M, N), the largest of a row being that of the predicted class.
    familiarity
        (M,) how much each resembles the examples, as a cosine.
    broken
        One line per file that was skipped: its name, and why.
    """

    paths: Sequence[Path]
    class_names: Sequence[str]
    scores: NDArray[np.float64]
    images: NDArray[np.uint8]
    familiarity: NDArray[np.float64]
    broken: Sequence[str] = ()

    @property
    def first_two(self) -> list[tuple[str, str]]:
        """The predicted class of each image, and the next best."""
        best = self.scores.argsort(1)[:, :-3:-1]
        return [(self.class_names[first], self.class_names[second]) for first, second in best]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probability of each of N classes for each of M images.

    Attributes
    ----------
    paths
        The M image files.
    class_names
        The N classes.
    probabilities
        Probabilities (M, N), each row with the sum 1.
    images
        Thumbnails of the images as the network saw them, (M, H, W, C) uint8.
    refused
        (M,) whether each probably shows none of the classes; None if that was not asked.
    """

    paths: Sequence[Path]
    class_names: Sequence[str]
    probabilities: NDArray[np.float64]
    images: NDArray[np.uint8]
    refused: NDArray[np.bool_] | None = None

    @property
    def answers(self) -> list[str]:
        """The class of each image, or "none of these" if it was refused."""
        refused = np.zeros(len(self.paths), bool) if self.refused is None else self.refused
        return [NONE if none else self.class_names[best] for best, none in zip(self.best, refused)]

    @property
    def best(self) -> NDArray[np.int64]:
        """(M,) the most probable class of each image."""
        return self.probabilities.argmax(1)

    def save(self, path: Path | str) -> None:
        """Write the CSV file `path`: image, class or "none of these", the largest probability, and those of all."""
        titles = ["image", "class", "probability", *self.class_names]
        rows = [
            [image, answer, f"{row.max():.4f}", *(f"{share:.4f}" for share in row)]
            for image, row, answer in zip(self.paths, self.probabilities, self.answers)
        ]
        write_text(Path(path), csv_table(titles, rows))


def class_folders(examples: Path | str, *, least: int = 2) -> tuple[list[Path], list[str]]:
    """The image files of a folder that holds one folder per class, and the class of each.

    Parameters
    ----------
    examples
        The folder.
    least
        How many classes there have to be.

    Raises
    ------
    DataError
        If there are fewer classes, or a class is empty.
    """
    folders = subfolders(Path(examples))
    files = {folder.name: image_files(folder) for folder in folders}
    empty = [name for name, paths in files.items() if not paths]
    if len(files) < least or empty:
        what = f"{', '.join(empty)} hold no images" if empty else f"there are {len(files)} of them"
        needed = "two folders" if least > 1 else "one folder"
        raise DataError(
            f"{examples} should hold at least {needed}, each with photographs of one class, but {what}; "
            f"for instance {examples}/cat/1.jpg and {examples}/dog/1.jpg"
        )
    images = [path for paths in files.values() for path in paths]
    inside = [path for folder in folders for path in visible(folder)]
    _warn_of_others([*(path for path in sorted(Path(examples).iterdir()) if not path.is_dir()), *inside], images)
    return images, [name for name, paths in files.items() for _ in paths]


def _warn_of_others(found: Sequence[Path], images: Collection[Path]) -> None:
    """Name what lies in folders of photographs and is not among the images, except what systems leave there."""
    taken = set(images)
    others = [
        path
        for path in found
        if path not in taken
        and (path.is_symlink() or not path.is_dir())
        and not path.name.startswith(".")
        and path.name.lower() not in _LEFT_BY_SYSTEMS
    ]
    if others:
        named = "\n  ".join(f"{path}{' (a link to a folder)' if path.is_dir() else ''}" for path in others[:SHOWN])
        more = f"\n  and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        warnings.warn(f"left out {_count(len(others))} without the ending of an image:\n  {named}{more}", stacklevel=4)


def _count(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"


def warn_of_skipped(broken: Sequence[str], *, without: Collection[object] = ()) -> None:
    """Name the files that were skipped, in a warning; DataError if that leaves classes without any photograph."""
    if without:
        raise DataError(
            f"no photograph of {', '.join(sorted(map(str, without)))} can be read; add some, or remove the class:\n  "
            + "\n  ".join(broken)
        )
    if broken:
        warnings.warn(f"skipped {_count(len(broken))} that cannot be read:\n  " + "\n  ".join(broken), stacklevel=3)


def images_at(places: Sequence[Path | str]) -> list[Path]:
    """Image files at `places`, and those inside of folders there.

    Raises
    ------
    DataError
        If a place does not exist, or there is no image.
    """
    images: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place} does not exist; name image files, or folders that hold some")
        found = image_files(place) if place.is_dir() else [place]
        if place.is_dir():
            _warn_of_others(visible(place), found)
        images += found
    if not images:
        where = f" in {', '.join(map(str, places))}" if places else ""
        raise DataError(f"there are no images{where}; name files, or folders that hold some")
    return images
