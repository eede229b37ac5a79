"""Aircraft, birds, cars and fungi in their publishers' layouts, on small copies made here, and mixtures of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import kshot.data as data
from kshot.data.images import decode_part
from kshot.data.sources import SOURCES, aircraft, cars, cub, fine_grained, fungi
from kshot.errors import ConfigError, DataError

PUBLISHED = [(module.CLASSES, module.IMAGES) for module in (aircraft, cub, cars, fungi)]
FRAME = (220, 20, 200)
NUMBER = 12  # of classes, which makes 8 train, 2 validate and 2 test


def photograph(path: Path, colour: int, box: tuple[int, int, int, int]) -> None:
    """A white image whose box (left, top, right, bottom) has one colour and a frame of a pixel; JPEG keeps both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 60, 3), 255, np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = FRAME
    pixels[top + 1 : bottom - 1, left + 1 : right - 1] = (10 * colour, 120, 60)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)


def write_aircraft(folder: Path) -> Path:
    """Twelve variants of three images each; a variant may have spaces and a slash in its name."""
    root = folder / "fgvc-aircraft-2013b" / "data"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    boxes = []
    for label in range(NUMBER):
        for index, part in enumerate(lists):
            name, box = f"{label:04}{index:03}", (10 + index, 8, 50, 30)
            photograph(root / "images" / f"{name}.jpg", label, box)
            boxes.append(f"{name} {box[0] + 1} {box[1] + 1} {box[2]} {box[3]}")
            lists[part].append(f"{name} Variant {label}A/B")
    (root / "images_box.txt").write_text("\n".join(boxes) + "\n")
    for part, lines in lists.items():
        (root / f"images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder / "fgvc-aircraft-2013b"


def write_cub(folder: Path) -> Path:
    """Twelve species; the first has two images, all others three."""
    root, number = folder / "CUB_200_2011", 0
    lists: dict[str, list[str]] = {name: [] for name in ("classes", "images", "image_class_labels", "bounding_boxes")}
    for label in range(NUMBER):
        species = f"{label + 1:03}.Bird_{label}"
        lists["classes"].append(f"{label + 1} {species}")
        for index in range(3 if label else 2):
            number += 1
            photograph(root / "images" / species / f"{species}_{index:04}.jpg", label, (5, 10, 35, 36))
            lists["images"].append(f"{number} {species}/{species}_{index:04}.jpg")
            lists["image_class_labels"].append(f"{number} {label + 1}")
            lists["bounding_boxes"].append(f"{number} 5.0 10.0 30.0 26.0")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_cars(folder: Path) -> Path:
    """Twelve models, two images of each to train on, and one to test on."""
    root = folder / "stanford_cars"
    types = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    rows: dict[str, list[tuple[Any, ...]]] = {"cars_train": [], "cars_test": []}
    for label in range(NUMBER):
        for part in ("cars_train", "cars_train", "cars_test"):
            name = f"{len(rows[part]) + 1:05}.jpg"
            photograph(root / part / name, label, (3, 4, 57, 38))
            rows[part].append((4, 5, 57, 38, label + 1, name))
    (root / "devkit").mkdir()
    names = np.array([[f"Make Model {label}" for label in range(NUMBER)]], object)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": np.array([rows["cars_train"]], types)})
    savemat(root / "cars_test_annos_withlabels.mat", {"annotations": np.array([rows["cars_test"]], types)})
    return root


def write_fungi(folder: Path) -> Path:
    """Thirteen species of two and one images, one of them with one image less; two species of the same name."""
    root = folder / "fungi"
    categories = [
        {"id": label, "name": f"species {max(label, 1)}", "supercategory": "x"} for label in range(NUMBER + 1)
    ]
    for part, count in (("train", 2), ("val", 1)):
        images, annotations = [], []
        for label in range(NUMBER + 1):
            for index in range(count if label < NUMBER else 1):
                number = len(images) + 1000 * (part == "val")
                path = f"images/{label}_{part}/{index}.JPG"
                photograph(root / path, label, (0, 0, 60, 40))
                images.append({"id": number, "file_name": path, "width": 60, "height": 40})
                annotations.append({"id": number, "image_id": number, "category_id": label})
        content = {"info": {}, "categories": categories, "images": images, "annotations": annotations}
        (root / f"{part}.json").write_text(json.dumps(content))
    return root


WRITERS: dict[str, Callable[[Path], Path]] = {
    "aircraft": write_aircraft,
    "cub": write_cub,
    "cars": write_cars,
    "fungi": write_fungi,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "aircraft": {},
    "cub": {"classes": None, "images": None},
    "cars": {},
    "fungi": {"classes": None, "images": 3},
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, images in ((aircraft, 36), (cub, 35), (cars, 36), (fungi, 38)):
        monkeypatch.setattr(module, "CLASSES", NUMBER + (module is fungi))
        monkeypatch.setattr(module, "IMAGES", images)
    monkeypatch.setattr(fine_grained, "BATCH", 7)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("outside", [False, True])
def test_prepares_what_the_boxes_hold(name: str, outside: bool, tmp_path: Path) -> None:
    """Every image has its class's colour, and the box's frame at its border: the box was met to the pixel."""
    folder = WRITERS[name](tmp_path)
    source = tmp_path if outside and name != "fungi" else folder
    data.prepare(name, source, root=tmp_path / "root", **OPTIONS[name])
    dataset = data.load(name, tmp_path / "root")
    sizes = [dataset.split(part).num_classes for part in ("train", "val", "test")]
    assert sizes == [8, 2, 2]
    seen = set()
    for part in ("train", "val", "test"):
        split = dataset.split(part)
        assert split.image_shape == (3, 84, 84)
        for label, own in enumerate(split.class_names):
            number = {"aircraft": own[8:-3], "cub": own[9:], "cars": own[11:], "fungi": own.split("(")[-1].strip(")")}
            colour = int(number[name].removeprefix("species "))
            images = split.images[split.labels == label].astype(int)
            assert len(images) == (2 if (name, colour) == ("cub", 0) else 3)
            assert np.abs(images[:, 8:-8, 8:-8] - (10 * colour, 120, 60)).max() <= 8
            for border in (images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]):
                assert np.abs(border - FRAME).max() <= 8
            seen.add(colour)
    assert seen == set(range(NUMBER))


def test_species_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = fungi.Fungi().photos(write_fungi(tmp_path))
    assert {"species 1 (0)", "species 1 (1)", "species 2"} < set(found)


def test_classes_and_images_are_drawn_by_seed(tmp_path: Path) -> None:
    folder = write_cub(tmp_path)

    def drawn(**options: Any) -> tuple[dict[str, str], list[int]]:
        classes = cub.CUB(**options).read(folder, tmp_path).classes
        return {info.name: info.split for info in classes}, sorted(info.count for info in classes)

    chosen, counts = drawn(classes=10, images=3)
    assert (len(chosen), counts) == (10, [3] * 10)
    assert "001.Bird_0" not in chosen, "which has two images"
    assert drawn(classes=10, images=3) == (chosen, counts)
    others, _ = drawn(classes=10, images=3, seed=1)
    assert others != chosen
    everything, _ = drawn(classes=None, images=2)
    assert len(everything) == NUMBER
    files = [
        {photo.path.name for photo in own}
        for seed in (0, 0, 1)
        for own in [cub.CUB(None, 2, seed=seed)._chosen(cub.CUB().photos(folder))["004.Bird_3"]]
    ]
    assert len(files[0]) == 2
    assert files[0] == files[1]
    for options, message in (
        ({"classes": 12, "images": 3}, "cub has 11 classes of 3 images or more, too few for 12"),
        ({"classes": 9}, "classes is 9, but must be at least 10"),
        ({"images": 0}, "images is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            drawn(**options)


def test_splits_are_64_16_20_of_100_classes() -> None:
    home = list(fine_grained._split([str(label) for label in range(100)]).values())
    assert [home.count(part) for part in ("train", "val", "test")] == [64, 16, 20]


BROKEN: list[tuple[str, Callable[[Path], object], str]] = [
    ("aircraft", lambda f: (f / "data/images_box.txt").unlink(), "images_box.txt does not exist. Pass the folder fgvc"),
    ("aircraft", lambda f: cut(f / "data/images_box.txt", lines=5), "images_box.txt has no box of image"),
    ("aircraft", lambda f: cut(f / "data/images_box.txt", letters=12), "has no four numbers for image 0000000"),
    (
        "aircraft",
        lambda f: cut(f / "data/images_variant_val.txt", lines=5),
        "12 classes and 29 images, and aircraft has 12 and",
    ),
    (
        "aircraft",
        lambda f: (f / "data/images/0003001.jpg").unlink(),
        "1 listed images are missing, the first is .*0003001",
    ),
    (
        "aircraft",
        lambda f: cut(f / "data/images/0003001.jpg", letters=300),
        r"cannot be read as images(.|\n)*0003001.jpg",
    ),
    ("cub", lambda f: (f / "classes.txt").unlink(), "classes.txt does not exist"),
    ("cub", lambda f: cut(f / "bounding_boxes.txt", lines=20), "no class or no box of image 21"),
    ("cub", lambda f: cut(f / "image_class_labels.txt", lines=20), "no class or no box of image 21"),
    ("cub", lambda f: cut(f / "images.txt", lines=20), "lists 7 classes and 20 images, and cub has 12 and 35"),
    ("cub", lambda f: (f / "images.txt").write_bytes(b"\xff\xfe\x00"), "images.txt cannot be read"),
    (
        "cars",
        lambda f: (f / "cars_test_annos_withlabels.mat").unlink(),
        "withlabels.mat does not exist. Pass the folder",
    ),
    ("cars", lambda f: cut(f / "devkit/cars_train_annos.mat", letters=400), "cars_train_annos.mat cannot be read"),
    ("cars", lambda f: (f / "cars_test/00001.jpg").unlink(), "1 listed images are missing"),
    (
        "cars",
        lambda f: savemat(f / "devkit/cars_train_annos.mat", {"annotations": np.array([(1,)], [("fname", object)])}),
        "cars_train_annos.mat has no class, bbox_x1",
    ),
    ("fungi", lambda f: (f / "val.json").unlink(), "val.json does not exist"),
    ("fungi", lambda f: cut(f / "val.json", letters=500), "val.json cannot be read"),
    ("fungi", lambda f: (f / "val.json").write_text("[]"), "val.json has no categories, images, annotations"),
    ("fungi", lambda f: (f / "val.json").write_text((f / "train.json").read_text()), "and fungi has 13 and 38"),
]


def cut(path: Path, lines: int | None = None, letters: int | None = None) -> None:
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:lines]) if lines else content[:letters])


@pytest.mark.parametrize(("name", "damage", "message"), BROKEN)
def test_refuses_what_is_missing_or_damaged(
    name: str, damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = WRITERS[name](tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=message):
        data.prepare(name, folder, root=tmp_path / "root", **OPTIONS[name])
    assert not (tmp_path / "root" / name).exists()


@pytest.mark.parametrize("name", WRITERS)
def test_says_where_the_files_can_be_had(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"{name} needs its files. Pass the folder .*kshot data prepare {name} --source"
    ):
        data.prepare(name, root=tmp_path)
    with pytest.raises(DataError, match=r"nowhere does not exist. Pass the folder"):
        data.prepare(name, tmp_path / "nowhere", root=tmp_path)
    (tmp_path / "archive.tgz").write_bytes(b"packed")
    with pytest.raises(DataError, match=r"archive.tgz is not a folder; unpack archives. Pass the folder"):
        data.prepare(name, tmp_path / "archive.tgz", root=tmp_path)


def test_a_part_of_an_image_is_stretched_to_a_square(tmp_path: Path) -> None:
    """Against nearest-neighbour pixels of a large image, at full and at reduced resolution of a JPEG."""
    pixels = np.zeros((900, 1200, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 1200).round()
    pixels[..., 1] = np.linspace(0, 255, 900).round()[:, None]
    for suffix in ("png", "jpg"):
        Image.fromarray(pixels).save(tmp_path / f"large.{suffix}", quality=95)
        for box in ((0, 0, 1200, 900), (300.5, 100, 1000, 300), (-50, 500, 90, 2000)):
            part = decode_part(tmp_path / f"large.{suffix}", 10, box=box)
            left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], 1200), min(box[3], 900)
            columns = (left + (right - left) * (np.arange(10) + 0.5) / 10).astype(int)
            rows = (top + (bottom - top) * (np.arange(10) + 0.5) / 10).astype(int)
            assert np.abs(part.astype(int) - pixels[rows][:, columns]).max() <= 5
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6  # orientation: to be turned by a quarter, clockwise
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    upright, whole = decode_part(tmp_path / "turned.png", 10), decode_part(tmp_path / "large.png", 10)
    assert np.abs(upright.astype(int) - np.rot90(whole, -1)).max() <= 1
    with pytest.raises(ValueError, match="shows nothing of its 1200 x 900 pixels"):
        decode_part(tmp_path / "large.png", 10, box=(1200, 0, 1300, 100))


def test_group_structured_data_names_its_domains(tmp_path: Path) -> None:
    for name in ("aircraft", "cub", "fungi"):
        data.prepare(name, WRITERS[name](tmp_path), root=tmp_path / "root", **OPTIONS[name])
    data.prepare("group-aircraft-bird-fungi", root=tmp_path / "root")
    dataset = data.load("group-aircraft-bird-fungi", tmp_path / "root")
    assert set(dataset.test.domains) == {"aircraft", "bird", "fungi"}
    assert dataset.train.tasks_within_domain
    assert dataset.train.image_shape == (3, 84, 84)
    with pytest.raises(DataError, match=r"'cars' is not prepared .*kshot data prepare cars"):
        data.prepare("group-car-bird-fungi", root=tmp_path / "root")
    assert SOURCES["group-car-bird-fungi"]().parts == ["cars", "cub", "fungi"]
    assert SOURCES["group-car-bird-fungi"].domains["cars"] == "car"


def test_published_counts() -> None:
    assert PUBLISHED == [(100, 10_000), (200, 11_788), (196, 8_144 + 8_041), (1_394, 85_578 + 4_182)]
