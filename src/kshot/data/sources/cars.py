"""Stanford Cars (Krause et al. 2013): 196 models of cars, 16,185 photographs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from kshot.data import archives
from kshot.data.sources.fine_grained import FineGrained, Photo
from kshot.errors import DataError
from kshot.files import read_bytes

CLASSES, IMAGES = 196, 16_185
_LARGEST = 1 << 20  # bytes of a MATLAB file; the largest one of the publisher has a fifth of this
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


class Cars(FineGrained):
    """Models of cars: the published training and test photographs together."""

    name = "cars"
    description = "Stanford Cars, 196 models, boxes at 84x84"
    classes = "126 / 31 / 39"
    obtain = (
        "Pass the folder stanford_cars that holds cars_train/, cars_test/, devkit/ with cars_meta.mat and "
        "cars_train_annos.mat, and cars_test_annos_withlabels.mat next to devkit/ or in it (the publisher's page is "
        "gone: see https://github.com/pytorch/vision/issues/7545)."
    )

    def photos(self, folder: Path) -> dict[str, list[Photo]]:
        """Read the three MATLAB files."""
        data = self.inner(folder, "stanford_cars")
        names = self._variable(data / "devkit" / "cars_meta.mat", "class_names").tolist()
        labels = "cars_test_annos_withlabels.mat"
        lists = {
            "cars_train": data / "devkit" / "cars_train_annos.mat",
            "cars_test": data / labels if (data / labels).exists() else data / "devkit" / labels,
        }
        found: dict[str, list[Photo]] = {}
        for part, path in lists.items():
            annotations = self._variable(path, "annotations")
            lacking = [field for field in ("fname", "class", *CORNERS) if field not in (annotations.dtype.names or ())]
            if lacking:
                raise DataError(f"{path} has no {', '.join(lacking)}: {archives.GET_IT_AGAIN}")
            for row in annotations:
                left, top, right, bottom = (int(row[corner]) for corner in CORNERS)  # pixels are counted from 1
                photo = Photo(data / part / str(row["fname"]), (left - 1, top - 1, right, bottom))
                found.setdefault(names[int(row["class"]) - 1], []).append(photo)
        self.check_counts(data, found, classes=CLASSES, images=IMAGES)
        return found

    def _variable(self, path: Path, name: str) -> Any:
        """A variable of a MATLAB file, as an array."""
        if not path.exists():
            raise DataError(f"{path} does not exist. {self.how_to_prepare()}")
        from scipy.io import loadmat  # not above: every program that loads some dataset would wait for it

        try:
            content = BytesIO(read_bytes(path, limit=_LARGEST))
            return loadmat(content, squeeze_me=True, variable_names=[name])[name]
        except Exception as error:  # damaged files raise whatever the reading at the damaged place raises
            raise DataError(f"{path} cannot be read ({error!r}): {archives.GET_IT_AGAIN}") from error
