"""Datasets of photographs of similar classes: their files listed with boxes, and a choice of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kshot import seeding
from kshot.data import archives
from kshot.data.classes import ClassInfo, Part
from kshot.data.images import Box, try_parts, unreadable
from kshot.data.sources.base import Source
from kshot.data.writing import Batch, Contents
from kshot.errors import ConfigError, DataError
from kshot.files import read_text

SIDE = 84
BATCH = 256
_LARGEST = 1 << 27  # bytes of a list
VALIDATE, TEST = 0.16, 0.2  # of the classes; the others train


@dataclass(frozen=True)
class Photo:
    """One file, and the part of it that shows the object; None for all of it."""

    path: Path
    box: Box | None = None


class FineGrained(Source):
    """Photographs at 84x84, stretched to squares: what their bounding boxes hold, or the whole of those without a box.

    64% of the classes train, 16% validate and 20% test, as in Yao et al. (2019, HSML); `seed` chooses which ones, since
    the class lists of Zhou et al. (2021) are not published.

    Parameters
    ----------
    classes
        How many classes are drawn from those with enough images; None for all of them.
    images
        Classes with fewer images are left out, and as many are drawn of the others; None for all classes and images.
    seed
        Which classes are drawn, which of them train, validate and test, and which of their images are taken.
    """

    def __init__(self, classes: int | None = None, images: int | None = None, *, seed: int = 0) -> None:
        for name, number, least in (("classes", classes, 10), ("images", images, 1)):
            if number is not None and number < least:
                raise ConfigError(f"{name} is {number}, but must be at least {least}")
        self.number, self.images, self.seed = classes, images, seed

    @abstractmethod
    def photos(self, folder: Path) -> dict[str, list[Photo]]:
        """All photographs of each class, by its name; DataError if the publisher's lists are damaged."""

    def read(self, path: Path | None, root: Path) -> Contents:
        """Choose classes and images; DataError if a file is missing."""
        folder = self.required(path)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder; unpack archives. {self.how_to_prepare()}")
        chosen = self._chosen(self.photos(folder))
        missing = [photo.path for photos in chosen.values() for photo in photos if not photo.path.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} listed images are missing, the first is {missing[0]}: {archives.GET_IT_AGAIN}"
            )
        home = _split(list(chosen))
        return Contents(
            [ClassInfo(name, "all", split=home[name], count=len(photos)) for name, photos in chosen.items()],
            (SIDE, SIDE, 3),
            batches=_batches(list(chosen.values())),
            origin=f"{self.description}, {folder.resolve()}, seed {self.seed}",
        )

    def _chosen(self, photos: Mapping[str, list[Photo]]) -> dict[str, list[Photo]]:
        """The photographs of the chosen classes, in an order by seed."""
        enough = [name for name, taken in photos.items() if self.images is None or len(taken) >= self.images]
        if self.number is not None and self.number > len(enough):
            raise ConfigError(
                f"{self.name} has {len(enough)} classes of {self.images or 1} images or more, too few for "
                f"{self.number}; choose fewer --classes or --images"
            )
        names = sorted(enough, key=self._rank)[: self.number]
        return {
            name: sorted(photos[name], key=lambda photo: self._rank(photo.path.name))[: self.images] for name in names
        }

    def _rank(self, name: str) -> int:
        return int(seeding.key(self.name, self.seed, name))

    def inner(self, folder: Path, name: str) -> Path:
        """The folder of this name inside of `folder`, or `folder` itself if it has none."""
        return folder / name if (folder / name).is_dir() else folder

    def lines(self, path: Path) -> list[str]:
        """The lines of a text file of the publisher."""
        try:
            return read_text(path, limit=_LARGEST).splitlines()
        except FileNotFoundError:
            raise DataError(f"{path} does not exist. {self.how_to_prepare()}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read ({error}): {archives.GET_IT_AGAIN}") from error

    def pairs(self, path: Path) -> dict[str, str]:
        """The lines of a text file as first word and rest."""
        lines = [line.strip() for line in self.lines(path)]
        return {first: rest for first, _, rest in (line.partition(" ") for line in lines if line)}

    def check_counts(self, what: object, photos: Mapping[str, list[Photo]], *, classes: int, images: int) -> None:
        """DataError unless the lists hold as many classes and images as were published."""
        found = len(photos), sum(map(len, photos.values()))
        if found != (classes, images):
            raise DataError(
                f"{what} lists {found[0]} classes and {found[1]} images, and {self.name} has {classes} and {images}: "
                f"{archives.GET_IT_AGAIN}"
            )


def _split(names: list[str]) -> dict[str, Part]:
    val, test = round(VALIDATE * len(names)), round(TEST * len(names))
    home: dict[str, Part] = dict.fromkeys(names, "train")
    home.update(dict.fromkeys(names[:val], "val"))
    home.update(dict.fromkeys(names[val : val + test], "test"))
    return home


def _batches(classes: list[list[Photo]]) -> Iterator[Batch]:
    photos = [photo for one_class in classes for photo in one_class]
    labels = np.repeat(np.arange(len(classes)), [len(one_class) for one_class in classes])
    failures: list[str] = []
    for first in range(0, len(photos), BATCH):
        some = photos[first : first + BATCH]
        arrays, failed = try_parts([photo.path for photo in some], [photo.box for photo in some], size=SIDE)
        failures += failed
        if not failures:  # after a failure the rest is read only to name all bad files at once
            yield np.stack(arrays), labels[first : first + BATCH]
    if failures:
        raise unreadable(failures)
