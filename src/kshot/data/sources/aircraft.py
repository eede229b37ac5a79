"""FGVC-Aircraft 2013b (Maji et al. 2013): 100 variants of aircraft, 100 photographs each."""

from __future__ import annotations

from pathlib import Path

from kshot.data import archives
from kshot.data.images import Box
from kshot.data.sources.fine_grained import FineGrained, Photo
from kshot.errors import DataError

CLASSES, IMAGES = 100, 10_000
LISTS = ("train", "val", "test")


class Aircraft(FineGrained):
    """Variants of aircraft; the bounding boxes also leave out the banner below each photograph."""

    name = "aircraft"
    description = "FGVC-Aircraft 2013b, 100 variants of 100 photographs each, boxes at 84x84"
    classes = "64 / 16 / 20"
    obtain = (
        "Pass the folder fgvc-aircraft-2013b, unpacked from fgvc-aircraft-2013b.tar.gz (2.75 GB, "
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/), which holds data/images and data/images_box.txt."
    )

    def photos(self, folder: Path) -> dict[str, list[Photo]]:
        """Read data/images_variant_{train,val,test}.txt and data/images_box.txt."""
        data = self.inner(self.inner(folder, "fgvc-aircraft-2013b"), "data")
        boxes = {name: _box(data, name, numbers) for name, numbers in self.pairs(data / "images_box.txt").items()}
        found: dict[str, list[Photo]] = {}
        for part in LISTS:
            for name, variant in self.pairs(data / f"images_variant_{part}.txt").items():
                if name not in boxes:
                    raise DataError(f"{data / 'images_box.txt'} has no box of image {name}: {archives.GET_IT_AGAIN}")
                found.setdefault(variant, []).append(Photo(data / "images" / f"{name}.jpg", boxes[name]))
        self.check_counts(data, found, classes=CLASSES, images=IMAGES)
        return found


def _box(data: Path, name: str, numbers: str) -> Box:
    """The box of a line "xmin ymin xmax ymax", which counts pixels from 1."""
    try:
        left, top, right, bottom = map(int, numbers.split())
    except ValueError:
        raise DataError(
            f"{data / 'images_box.txt'} has no four numbers for image {name}: {archives.GET_IT_AGAIN}"
        ) from None
    return left - 1, top - 1, right, bottom
