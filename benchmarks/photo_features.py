"""Features of the photographs that the measurements of `photo_answers.py` are made on, computed once and kept.

    python benchmarks/photo_features.py CACHE --groceries DIR --cifar-fs ROOT [--run RUN] [--groups DIR]

The groceries (Klasson et al. 2019) are folders `train` and `test` with one folder per class; CIFAR-FS is kshot's
prepared dataset in ROOT; the groups are folders `butterflies`, `cards` and `dogs` with one folder per class. Each
becomes `CACHE/<set>.npz`: `view_<name>` (M, D) features of unit length by EfficientNet-Lite0 as it stands, without the
power that kshot raises them to, `pixels` (M, 48 * 48 * 3) and `labels` (M,). With a run, `CACHE/cifar_test_run.npz`
holds the features of its own network for the images of `cifar_test_views`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize as unit

import kshot
from kshot.backbones import EfficientNetLite0
from kshot.data.augmentation import normalize
from kshot.data.dataset import Normalization
from kshot.data.images import shown_at
from kshot.photos import LearnerNetwork, photo_features
from kshot.photos.fast import fast_on_cpu

# side of the network's images, side of the shorter edge before the crop, mirrored: "plain" is the weights' own form
VIEWS = {
    "plain": (224, 256, False),
    "mirror": (224, 256, True),
    "wide": (224, 224, False),
    "tight": (224, 288, False),
    "large": (288, 329, False),
}
_PER_CLASS = {"groceries": 12, "cifar_val": 80, "cifar_test": 150, "group": 24}
_AT_ONCE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--groceries", type=Path, help="folder with train and test")
    parser.add_argument("--cifar-fs", type=Path, help="root of kshot's prepared datasets")
    parser.add_argument("--groups", type=Path, help="folder with butterflies, cards and dogs")
    parser.add_argument("--run", type=Path, help="a trained run of a feature learner")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for name, classes, views in sets(options):
        target = options.cache / f"{name}.npz"
        if not target.exists():
            print(f"{name}: {sum(map(len, classes))} images of {len(classes)} classes", flush=True)
            np.savez(target, **_computed(classes, views))
        if options.run and name == "cifar_test_views":
            network = LearnerNetwork(kshot.Run(options.run).learner, kshot.Run(options.run).image_form)
            images = [image for own in classes for image in own]
            labels = np.repeat(np.arange(len(classes)), [len(own) for own in classes])
            features = photo_features(network, images).features.numpy()
            np.savez(options.cache / "cifar_test_run.npz", view_plain=features, labels=labels)


def sets(options: argparse.Namespace) -> Iterator[tuple[str, list[Sequence[Image.Image | Path]], Sequence[str]]]:
    """Name, the images of each class, and the views that are wanted of each set."""
    if options.groceries:
        for part in ("train", "test"):
            views = list(VIEWS) if part == "train" else ["plain", "mirror", "wide", "large"]
            yield f"groceries_{part}", _files(options.groceries / part, _PER_CLASS["groceries"]), views
    if options.cifar_fs:
        data = kshot.load("cifar-fs", root=options.cifar_fs)
        for part in ("val", "test"):
            split = data.split(part)
            count = _PER_CLASS[f"cifar_{part}"]
            starts = np.cumsum(split.counts) - split.counts
            classes = [
                [Image.fromarray(np.asarray(each)) for each in split.images[row : row + count]] for row in starts
            ]
            yield f"cifar_{part}", classes, ["plain"]
            count = 24 if part == "val" else 20
            yield f"cifar_{part}_views", [images[:count] for images in classes], list(VIEWS)
    if options.groups:
        for name in ("butterflies", "cards", "dogs"):
            classes = _files(options.groups / name, _PER_CLASS["group"])
            yield name, classes, ["plain"]
            yield f"{name}_views", [images[:17] for images in classes[:32]], list(VIEWS)


def _files(folder: Path, count: int) -> list[Sequence[Path]]:
    generator = np.random.default_rng(0)
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    return [list(generator.permutation(sorted(each.iterdir()))[:count]) for each in folders]


@torch.no_grad()
def _computed(classes: Sequence[Sequence[Image.Image | Path]], views: Sequence[str]) -> dict[str, NDArray]:
    networks = {
        side: fast_on_cpu(EfficientNetLite0(image_size=side, pretrained=True).eval())
        for side in {VIEWS[view][0] for view in views}
    }
    images = [image for own in classes for image in own]
    rows: dict[str, list[Tensor]] = {view: [] for view in views}
    pixels = []
    for start in range(0, len(images), _AT_ONCE):
        opened = [_opened(image) for image in images[start : start + _AT_ONCE]]
        pixels += [shown_at(image, 48, resize=55).ravel() for image in opened]
        for view in views:
            rows[view].append(unit(networks[VIEWS[view][0]](_batch(opened, *VIEWS[view]))))
    labels = np.repeat(np.arange(len(classes)), [len(own) for own in classes])
    features = {f"view_{view}": torch.cat(own).numpy() for view, own in rows.items()}
    return {**features, "pixels": np.stack(pixels), "labels": labels}


def _opened(image: Image.Image | Path) -> Image.Image:
    return image if isinstance(image, Image.Image) else ImageOps.exif_transpose(Image.open(image))


def _batch(images: Sequence[Image.Image], side: int, resize: int, mirrored: bool) -> Tensor:
    form = EfficientNetLite0.pretrained_form
    shown = [shown_at(ImageOps.mirror(image) if mirrored else image, side, resize=resize) for image in images]
    return normalize(torch.from_numpy(np.stack(shown)), Normalization(form.mean, form.std))


if __name__ == "__main__":
    main()
