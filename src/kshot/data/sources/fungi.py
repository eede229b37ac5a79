"""FGVCx Fungi (2018): 1,394 species of mushrooms, 89,760 photographs with labels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from kshot.data import archives
from kshot.data.sources.fine_grained import FineGrained, Photo
from kshot.errors import DataError

CLASSES, IMAGES = 1_394, 89_760
FIELDS = ("categories", "images", "annotations")


class Fungi(FineGrained):
    """Species of fungi: the published training and validation photographs together, which have no bounding boxes.

    By default 100 of the species with 150 photographs or more, and 150 of each, as in Yao et al. (2019).
    """

    name = "fungi"
    description = "FGVCx Fungi 2018, species of mushrooms, 84x84"
    classes = "64 / 16 / 20 of 1394"
    obtain = (
        "Pass the folder into which fungi_train_val.tgz (13 GB) and train_val_annotations.tgz were unpacked "
        "(https://github.com/visipedia/fgvcx_fungi_comp), which holds images/, train.json and val.json."
    )

    def __init__(self, classes: int | None = 100, images: int | None = 150, *, seed: int = 0) -> None:
        super().__init__(classes, images, seed=seed)

    def photos(self, folder: Path) -> dict[str, list[Photo]]:
        """Read train.json and val.json."""
        contents = [self._list(folder / f"{part}.json") for part in ("train", "val")]
        names = {category["id"]: str(category["name"]) for content in contents for category in content["categories"]}
        uses = Counter(names.values())
        found: dict[str, list[Photo]] = {}
        for part, content in zip(("train", "val"), contents):
            paths = {image["id"]: folder / image["file_name"] for image in content["images"]}
            for annotation in content["annotations"]:
                category = annotation["category_id"]
                if annotation["image_id"] not in paths or category not in names:
                    raise DataError(
                        f"{folder / part}.json names no file or no category of image {annotation['image_id']}: "
                        f"{archives.GET_IT_AGAIN}"
                    )
                name = names[category] if uses[names[category]] == 1 else f"{names[category]} ({category})"
                found.setdefault(name, []).append(Photo(paths[annotation["image_id"]]))
        self.check_counts(folder, found, classes=CLASSES, images=IMAGES)
        return found

    def _list(self, path: Path) -> dict[str, Any]:
        text = "\n".join(self.lines(path))
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} cannot be read ({error}): {archives.GET_IT_AGAIN}") from error
        lacking = [field for field in FIELDS if not isinstance(content, dict) or field not in content]
        if lacking:
            raise DataError(f"{path} has no {', '.join(lacking)}: {archives.GET_IT_AGAIN}")
        return content
