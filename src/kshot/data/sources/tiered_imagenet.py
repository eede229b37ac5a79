"""tiered-ImageNet (Ren et al. 2018): 608 classes of ImageNet, split by superclass, 779,165 images, 84x84."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.data import archives
from kshot.data.classes import PARTS, ClassInfo, Part
from kshot.data.images import decode
from kshot.data.pickles import load_pickle
from kshot.data.sources.base import Source
from kshot.data.sources.mini_imagenet import NORMALIZATION
from kshot.data.writing import Batch, Contents
from kshot.errors import DataError

SIDE = 84
BATCH = 512
CLASSES: dict[Part, int] = {"train": 351, "val": 97, "test": 160}
IMAGES: dict[Part, int] = {"train": 448_695, "val": 124_261, "test": 206_209}


@dataclass(frozen=True)
class _Labels:
    """The labels of one split: the class of each image (M,); name, superclass and number of images of each class."""

    of_image: NDArray[np.int64]
    names: list[str]
    domains: list[str]
    counts: list[int]


class TieredImageNet(Source):
    """Reads the pickles of encoded images that Ren et al. published; a domain is a superclass ("general label").

    The encoded images of one split at a time are in memory, never the 16 GB of decoded pixels.
    """

    name = "tiered-imagenet"
    description = "608 classes of ImageNet split by superclass, 779,165 images, 84x84"
    classes = "351 / 97 / 160"
    obtain = (
        "Pass the folder tiered-imagenet, which holds {train,val,test}_images_png.pkl and {train,val,test}_labels.pkl, "
        "from https://github.com/renmengye/few-shot-ssl-public (13 GB)."
    )

    def read(self, path: Path | None, root: Path) -> Contents:
        """Read the labels; the images follow batch by batch."""
        folder = self.required(path)
        labels = {part: _read_labels(folder, part) for part in PARTS}
        uses = Counter(name for part in PARTS for name in labels[part].names)
        return Contents(
            [
                # ImageNet has two cranes, a bird and a machine.
                ClassInfo(
                    name if uses[name] == 1 else f"{name} ({part} class {index})", domain, split=part, count=count
                )
                for part in PARTS
                for index, (name, domain, count) in enumerate(
                    zip(labels[part].names, labels[part].domains, labels[part].counts)
                )
            ],
            (SIDE, SIDE, 3),
            batches=_batches(folder, labels),
            origin=f"release of Ren et al., {folder.resolve()}",
            normalization=NORMALIZATION,
        )


def _read_labels(folder: Path, part: Part) -> _Labels:
    path = folder / f"{part}_labels.pkl"
    content = load_pickle(path)
    fields = ("label_specific", "label_general", "label_specific_str", "label_general_str")
    lacking = [field for field in fields if not isinstance(content, dict) or field not in content]
    if lacking:
        raise DataError(f"{path} has no {', '.join(lacking)}: {archives.GET_IT_AGAIN}")
    specific, general = (_whole_numbers(path, content[field]) for field in fields[:2])
    numbers, firsts, of_image, counts = np.unique(specific, return_index=True, return_inverse=True, return_counts=True)
    found = len(numbers), len(specific)
    if found != (CLASSES[part], IMAGES[part]):
        raise DataError(
            f"{path} has {found[0]} classes and {found[1]} images, and tiered-imagenet's {part} split has "
            f"{CLASSES[part]} and {IMAGES[part]}: {archives.GET_IT_AGAIN}"
        )
    specific_names, general_names = (_texts(content[field]) for field in fields[2:])
    if specific.max() >= len(specific_names) or general.max() >= len(general_names):
        raise DataError(f"{path} has labels without a name: {archives.GET_IT_AGAIN}")
    return _Labels(
        of_image=of_image.reshape(-1),
        names=[specific_names[number] for number in numbers],
        domains=[general_names[general[first]] for first in firsts],
        counts=counts.tolist(),
    )


def _whole_numbers(path: Path, labels: Any) -> NDArray[np.int64]:
    numbers = np.asarray(labels)
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise DataError(f"{path} has labels that are no whole numbers: {archives.GET_IT_AGAIN}")
    return numbers.astype(np.int64)


def _texts(names: Iterable[Any]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _batches(folder: Path, labels: dict[Part, _Labels]) -> Iterator[Batch]:
    classes_before = 0
    for part in PARTS:
        path, known = folder / f"{part}_images_png.pkl", labels[part]
        encoded = load_pickle(path)
        if len(encoded) != len(known.of_image):
            raise DataError(
                f"{path} holds {len(encoded)} images, and there are {len(known.of_image)} labels: "
                f"{archives.GET_IT_AGAIN}"
            )
        for first in range(0, len(encoded), BATCH):
            pictures = [_decoded(path, first + i, item) for i, item in enumerate(encoded[first : first + BATCH])]
            yield np.stack(pictures), classes_before + known.of_image[first : first + BATCH]
        del encoded  # before the next split is read
        classes_before += len(known.names)


def _decoded(path: Path, number: int, item: Any) -> NDArray[np.uint8]:
    # The authors read ImageNet by cv2.imread, which orders colours blue, green, red, and encoded those arrays by
    # cv2.imencode, which takes this order and writes PNGs with the usual one: any reader of PNGs finds red first. Only
    # cv2.imdecode, which the authors' decompress() calls, has blue first again; the means and deviations of
    # NORMALIZATION are for red first.
    try:
        return decode(item if isinstance(item, bytes) else np.asarray(item, np.uint8).tobytes(), SIDE)
    except Exception as error:  # Pillow's decoders raise many kinds; all mean that the image is damaged
        raise DataError(f"image {number} of {path} cannot be read ({error}): {archives.GET_IT_AGAIN}") from error
