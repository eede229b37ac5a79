"""CUB-200-2011 (Wah et al. 2011): 200 species of birds, 11,788 photographs."""

from __future__ import annotations

from pathlib import Path

from kshot.data import archives
from kshot.data.sources.fine_grained import FineGrained, Photo
from kshot.errors import DataError

CLASSES, IMAGES = 200, 11_788


class CUB(FineGrained):
    """Species of birds; by default 100 of those with 60 photographs, as in Yao et al. (2019)."""

    name = "cub"
    description = "CUB-200-2011, species of birds, boxes at 84x84"
    classes = "64 / 16 / 20 of 200"
    obtain = (
        "Pass the folder CUB_200_2011, unpacked from CUB_200_2011.tgz (https://www.vision.caltech.edu/datasets/"
        "cub_200_2011/), which holds images/, images.txt, image_class_labels.txt, classes.txt and bounding_boxes.txt."
    )

    def __init__(self, classes: int | None = 100, images: int | None = 60, *, seed: int = 0) -> None:
        super().__init__(classes, images, seed=seed)

    def photos(self, folder: Path) -> dict[str, list[Photo]]:
        """Read images.txt, image_class_labels.txt, classes.txt and bounding_boxes.txt."""
        data = self.inner(folder, "CUB_200_2011")
        names, paths = self.pairs(data / "classes.txt"), self.pairs(data / "images.txt")
        labels, boxes = self.pairs(data / "image_class_labels.txt"), self.pairs(data / "bounding_boxes.txt")
        found: dict[str, list[Photo]] = {}
        for number, path in paths.items():
            try:
                left, top, width, height = map(float, boxes[number].split())
                photo = Photo(data / "images" / path, (left, top, left + width, top + height))
                found.setdefault(names[labels[number]], []).append(photo)
            except (KeyError, ValueError):
                raise DataError(
                    f"the lists of {data} give no class or no box of image {number}: {archives.GET_IT_AGAIN}"
                ) from None
        self.check_counts(data / "images.txt", found, classes=CLASSES, images=IMAGES)
        return found
