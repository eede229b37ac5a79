"""mini- and tiered-ImageNet in their publishers' layouts, on small copies made here."""

from __future__ import annotations

import base64
import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import PARTS, noise, png

import kshot.data as data
from kshot.data.sources import mini_imagenet, tiered_imagenet
from kshot.errors import DataError

# mini-ImageNet -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 4, "val": 2, "test": 3})
    monkeypatch.setattr(mini_imagenet, "IMAGES_PER_CLASS", 5)
    monkeypatch.setattr(mini_imagenet, "BATCH", 7)


MINI_LABELS = {"train": [0, 1, 2, 3], "val": [64, 65], "test": [80, 81, 82]}


def write_mini_pickles(folder: Path, **extra: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    written = {}
    for seed, part in enumerate(PARTS):
        labels = np.random.default_rng(seed).permutation(np.repeat(MINI_LABELS[part], 5))
        written[part] = noise(len(labels), 84, 84, 3, seed=seed), labels
        content = {"data": written[part][0], "labels": labels.tolist(), **extra}
        (folder / mini_imagenet.PICKLES[part]).write_bytes(pickle.dumps(content, 2))
    return written


@pytest.mark.usefixtures("small_mini")
def test_mini_imagenet_from_the_pickles_of_metaoptnet(tmp_path: Path) -> None:
    names = {f"n{label:08}": label for labels in MINI_LABELS.values() for label in labels}
    written = write_mini_pickles(tmp_path, catname2label=names)
    data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    dataset = data.load("mini-imagenet", tmp_path / "root")
    for part in PARTS:
        split = dataset.split(part)
        assert split.class_names == tuple(f"n{label:08}" for label in MINI_LABELS[part])
        for index, label in enumerate(MINI_LABELS[part]):
            np.testing.assert_array_equal(
                split.images[split.labels == index], written[part][0][written[part][1] == label]
            )
    np.testing.assert_allclose(dataset.train.normalization.mean[0] * 255, 120.39586422)


@pytest.mark.usefixtures("small_mini")
def test_mini_imagenet_classes_without_names_are_numbered(tmp_path: Path) -> None:
    write_mini_pickles(tmp_path)
    data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    assert data.load("mini-imagenet", tmp_path / "root").val.class_names == ("val class 64", "val class 65")


def write_mini_lists(folder: Path) -> dict[str, np.ndarray]:
    (folder / "images").mkdir()
    images = {}
    for seed, part in enumerate(PARTS):
        rows = []
        for label in MINI_LABELS[part]:
            for i in range(5):
                name = f"n{label:08}{i:08}.png"
                images[name] = noise(84, 84, 3, seed=1000 * seed + 10 * label + i)
                (folder / "images" / name).write_bytes(png(images[name]))
                rows.append((name, f"n{label:08}"))
        with open(folder / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([("filename", "label"), *rows])
    return images


@pytest.mark.usefixtures("small_mini")
def test_mini_imagenet_from_images_and_lists(tmp_path: Path) -> None:
    images = write_mini_lists(tmp_path)
    data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    split = data.load("mini-imagenet", tmp_path / "root").test
    assert split.class_names == ("n00000080", "n00000081", "n00000082")
    np.testing.assert_array_equal(split.images[5], images["n0000008100000000.png"])


@pytest.mark.usefixtures("small_mini")
def test_mini_imagenet_refuses_what_is_missing_or_damaged(tmp_path: Path) -> None:
    write_mini_lists(tmp_path)
    broken = tmp_path / "images" / "n0000006400000001.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot be read as images(.|\n)*n0000006400000001.png"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    broken.unlink()
    with pytest.raises(DataError, match=r"1 listed images are missing, the first is .*n0000006400000001.png"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    (tmp_path / "val.csv").write_text("file,class\na,b\n")
    with pytest.raises(DataError, match=r"val.csv is not a list of filename,label"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_mini_imagenet_refuses_other_counts_and_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mini_pickles(tmp_path)
    with pytest.raises(DataError, match="train has 4 classes, and mini-imagenet has 64"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    monkeypatch.setattr(mini_imagenet, "CLASSES", {"train": 4, "val": 2, "test": 3})
    with pytest.raises(DataError, match="'train class 0' has 5 images, and 600 were expected"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    path = tmp_path / mini_imagenet.PICKLES["val"]
    path.write_bytes(pickle.dumps({"data": noise(4, 32, 32, 3), "labels": [64] * 4}))
    with pytest.raises(DataError, match=r"split_val.pickle holds pixels uint8 \(4, 32, 32, 3\)"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"split_val.pickle has no 'data'"):
        data.prepare("mini-imagenet", tmp_path, root=tmp_path / "root")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither layout.*MetaOptNet.*kshot data prepare mini-imagenet --source PATH"):
        data.prepare("mini-imagenet", tmp_path / "empty", root=tmp_path / "root")


# tiered-ImageNet -----------------------------------------------------------------------------------------------------

TIERED = {"train": (3, 9), "val": (2, 5), "test": (2, 4)}

# What cv2.imencode(".png", image) returned for 84x84 pixels of blue 10, green 100 and red 200, in the order in which
# cv2.imread returns the colours of a photograph.
PNG_OF_OPENCV = base64.b85decode(
    "iBL{Q4GJ0x0000DNk~Le0000~0000~2m$~A0Fw!amH+?%a!Eu%RCwC$&oKc2FbDu3-Dyt48fz_lga+hv#Z@m3lb4s5mzS59mzS59mzS59mzS59"
    "mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59mzS59-}3<+{sG>3J>9<m0000<MNUMnLSTX"
)


@pytest.fixture
def small_tiered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiered_imagenet, "CLASSES", {part: classes for part, (classes, _) in TIERED.items()})
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {part: images for part, (_, images) in TIERED.items()})
    monkeypatch.setattr(tiered_imagenet, "BATCH", 4)


def write_tiered(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Encoded images as column vectors, which is how OpenCV returns them; two classes are called crane."""
    written = {}
    for seed, (part, (classes, images)) in enumerate(TIERED.items()):
        labels = np.arange(images) % classes
        written[part] = noise(images, 84, 84, 3, seed=seed), labels
        encoded = [np.frombuffer(png(image), np.uint8)[:, None] for image in written[part][0]]
        (folder / f"{part}_images_png.pkl").write_bytes(pickle.dumps(encoded, 2))
        content = {
            "label_specific": labels,
            "label_general": labels % 2,
            "label_specific_str": ["crane" if part != "val" else "owl", *(f"{part} {i}" for i in range(1, classes))],
            "label_general_str": [f"{part} bird", f"{part} machine"],
        }
        (folder / f"{part}_labels.pkl").write_bytes(pickle.dumps(content, 2))
    return written


@pytest.mark.usefixtures("small_tiered")
def test_tiered_imagenet(tmp_path: Path) -> None:
    written = write_tiered(tmp_path)
    data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")
    dataset = data.load("tiered-imagenet", tmp_path / "root")
    for part in PARTS:
        split = dataset.split(part)
        for label in range(split.num_classes):
            np.testing.assert_array_equal(
                split.images[split.labels == label], written[part][0][written[part][1] == label]
            )
            assert split.domains[label] == (f"{part} machine" if label % 2 else f"{part} bird")
    assert dataset.train.class_names == ("crane (train class 0)", "train 1", "train 2")
    assert dataset.val.class_names[0] == "owl"


@pytest.mark.usefixtures("small_tiered")
def test_images_that_opencv_encoded_have_red_first(tmp_path: Path) -> None:
    write_tiered(tmp_path)
    path = tmp_path / "val_images_png.pkl"
    encoded = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps([np.frombuffer(PNG_OF_OPENCV, np.uint8)[:, None], *encoded[1:]], 2))
    data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")
    assert (data.load("tiered-imagenet", tmp_path / "root").val.images[0] == (200, 100, 10)).all()


@pytest.mark.usefixtures("small_tiered")
def test_tiered_imagenet_refuses_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiered(tmp_path)
    path = tmp_path / "val_images_png.pkl"
    encoded = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps([encoded[0], encoded[1][:50], *encoded[2:]]))
    with pytest.raises(DataError, match=r"image 1 of .*val_images_png.pkl cannot be read"):
        data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")
    path.write_bytes(pickle.dumps(encoded[1:]))
    with pytest.raises(DataError, match="holds 4 images, and there are 5 labels"):
        data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {"train": 9, "val": 6, "test": 4})
    with pytest.raises(DataError, match=r"val_labels.pkl has 2 classes and 5 images.* has 2 and 6"):
        data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")
    (tmp_path / "test_labels.pkl").write_bytes(pickle.dumps({"label_specific": np.zeros(4)}))
    monkeypatch.setattr(tiered_imagenet, "IMAGES", {"train": 9, "val": 5, "test": 4})
    with pytest.raises(DataError, match=r"test_labels.pkl has no label_general, label_specific_str, label_general_str"):
        data.prepare("tiered-imagenet", tmp_path, root=tmp_path / "root")


def test_published_counts_of_tiered_imagenet() -> None:
    assert sum(tiered_imagenet.IMAGES.values()) == 779_165
    assert sum(tiered_imagenet.CLASSES.values()) == 608
