"""Every public dataset, on small data in its publisher's layout, made by the tests."""

from __future__ import annotations

import csv
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kshot.data as data
from kshot.data import store
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.sources import SOURCES, cifar, mini_imagenet, omniglot, tiered_imagenet
from kshot.data.sources.base import packaged_splits
from kshot.errors import ConfigError, DataError

PARTS = ("train", "val", "test")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


# CIFAR-100 -----------------------------------------------------------------------------------------------------------


def write_cifar(folder: Path, *, keys: type = str, images: int = 5) -> np.ndarray:
    """Shuffled images, `images` + 1 a class; pixel values tell the class. Returns the training pixels."""
    splits = packaged_splits("cifar-fs")
    names = sorted(name for part in PARTS for name in splits[part])
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"fine_label_names": names, "coarse_label_names": [f"super{i}" for i in range(20)]}

    def text(value: str) -> str | bytes:
        return value.encode() if keys is bytes else value

    converted = {text(key): [text(name) for name in value] for key, value in meta.items()}
    (folder / "meta").write_bytes(pickle.dumps(converted, 2))
    pixels = {}
    for part, count in (("train", images), ("test", 1)):
        labels = np.random.default_rng(1).permutation(np.repeat(np.arange(100), count))
        pixels[part] = noise(len(labels), 3072, seed=count)
        pixels[part][:, 0] = labels
        content = {
            "data": pixels[part],
            "fine_labels": labels.tolist(),
            "coarse_labels": (labels // 5).tolist(),
        }
        (folder / part).write_bytes(pickle.dumps({text(key): value for key, value in content.items()}, 2))
    return pixels["train"]


@pytest.mark.parametrize("keys", [str, bytes])
@pytest.mark.parametrize("name", ["cifar-fs", "fc100"])
def test_cifar_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: type, name: str) -> None:
    monkeypatch.setattr(cifar, "IMAGES_PER_CLASS", 6)
    train = write_cifar(tmp_path / "cifar-100-python", keys=keys)
    data.prepare(name, tmp_path, root=tmp_path / "root")
    dataset = data.load(name, tmp_path / "root")
    splits = packaged_splits(name)
    names = sorted(own for part in PARTS for own in splits[part])
    for part in PARTS:
        split = dataset.split(part)
        assert split.class_names == tuple(sorted(splits[part]))
        assert split.images.shape == (6 * len(splits[part]), 32, 32, 3)
        # The first red pixel is the number of the class.
        np.testing.assert_array_equal(
            split.images[:, 0, 0, 0], np.repeat([names.index(own) for own in split.class_names], 6)
        )
        assert split.groups == tuple(f"super{names.index(own) // 5}" for own in split.class_names)
    label = dataset.train.class_names.index("train")
    expected = train[train[:, 0] == names.index("train")].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(dataset.train.images[label * 6 : label * 6 + 5], expected)
    assert dataset.train.normalization.mean == (0.5071, 0.4867, 0.4408)
    assert "checksum, counts and splits are right" in data.verify(name, tmp_path / "root")


def tar_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def test_cifar_from_its_archive_with_the_right_checksum_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kshot.files import checksum

    monkeypatch.setattr(cifar, "IMAGES_PER_CLASS", 6)
    write_cifar(tmp_path / "cifar-100-python")
    archive = tar_of(tmp_path / "cifar-100-python", tmp_path / "cifar-100-python.tar.gz")
    with pytest.raises(DataError, match=r"cifar-100-python.tar.gz has the MD5 checksum .* get it again"):
        data.prepare("cifar-fs", archive, root=tmp_path / "root")
    assert not (tmp_path / "root").exists()
    monkeypatch.setattr(cifar, "MD5", checksum(archive, "md5"))
    monkeypatch.setattr(cifar, "URL", archive.as_uri())
    data.prepare("cifar-fs", archive, root=tmp_path / "root")
    # Without a source the same file is fetched, from its address, and kept for the other split.
    data.prepare("cifar-fs", root=tmp_path / "other")
    assert (tmp_path / "other/downloads/cifar-100-python.tar.gz").exists()
    monkeypatch.setattr(cifar, "URL", (tmp_path / "gone/cifar-100-python.tar.gz").as_uri())
    data.prepare("fc100", root=tmp_path / "other")
    for root in ("root", "other"):
        dataset = data.load("cifar-fs", tmp_path / root)
        np.testing.assert_array_equal(dataset.test.images, data.load("cifar-fs", tmp_path / "root").test.images)


def test_cifar_with_a_count_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path)
    with pytest.raises(DataError, match="class 'apple' has 6 images, and 600 were expected"):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")
    monkeypatch.setattr(cifar, "IMAGES_PER_CLASS", 5)
    with pytest.raises(DataError, match="more than the 5 images"):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_cifar_with_fields_missing_is_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / "test").write_bytes(pickle.dumps({"data": noise(3, 3072)}))
    with pytest.raises(DataError, match=r"'test' in .* has no fine_labels, coarse_labels"):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")
    (tmp_path / "test").write_bytes(
        pickle.dumps({"data": noise(3, 9), "fine_labels": [1, 2, 3], "coarse_labels": [1, 2, 3]})
    )
    with pytest.raises(DataError, match=r"holds pixels of shape \(3, 9\)"):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")
    (tmp_path / "test").unlink()
    with pytest.raises(DataError, match=r"cannot read .*test"):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")


@pytest.mark.parametrize(("name", "sizes"), [("cifar-fs", (64, 16, 20)), ("fc100", (60, 20, 20))])
def test_class_lists_of_cifar_partition_its_100_classes(name: str, sizes: tuple[int, ...]) -> None:
    splits = packaged_splits(name)
    assert tuple(len(splits[part]) for part in PARTS) == sizes
    assert len({own for part in PARTS for own in splits[part]}) == 100


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
            assert split.groups[label] == (f"{part} machine" if label % 2 else f"{part} bird")
    assert dataset.train.class_names == ("crane (train class 0)", "train 1", "train 2")
    assert dataset.val.class_names[0] == "owl"


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


# Omniglot ------------------------------------------------------------------------------------------------------------

# Alphabets of the two sets with their numbers of characters.
EVALUATION = {
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26, "Ge_ez": 26,
    "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25,
    "Tibetan": 42, "ULOG": 26,
}  # fmt: skip
BACKGROUND = {
    "Armenian": 41, "Bengali": 46, "Early_Aramaic": 22, "Hebrew": 22, "Mkhedruli_(Georgian)": 41,
    **{f"Alphabet{i:02}": 32 for i in range(24)}, "Zulu": 24,
}  # fmt: skip


def write_omniglot(folder: Path, part: str, alphabets: dict[str, int]) -> Path:
    """The official layout, with one small drawing shared by all members of an alphabet's character."""
    path = folder / f"{part}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{part}/", "")
        for number, (alphabet, characters) in enumerate(sorted(alphabets.items())):
            for character in range(1, characters + 1):
                drawing = np.full((105, 105), 255, np.uint8)
                drawing[:30, :10] = 0  # ink, at the top left
                drawing[-1, number], drawing[-2, character] = 0, 0
                content = png(drawing)
                for drawer in range(1, 21):
                    archive.writestr(f"{part}/{alphabet}/character{character:02}/0001_{drawer:02}.png", content)
    return path


@pytest.fixture(scope="module")
def omniglot_zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("omniglot")
    write_omniglot(folder, "images_background", BACKGROUND)
    write_omniglot(folder, "images_evaluation", EVALUATION)
    return folder


def test_omniglot_by_the_split_of_vinyals(omniglot_zips: Path) -> None:
    contents = omniglot.Omniglot().read(omniglot_zips, omniglot_zips)
    sizes = {part: sum(info.split == part for info in contents.classes) // 4 for part in PARTS}
    assert sizes == {"train": 1028, "val": 172, "test": 423}
    home = {info.name: info.split for info in contents.classes}
    assert home["Gurmukhi/character41/rot000"] == "train"
    assert home["Gurmukhi/character42/rot000"] == "test"
    assert home["Hebrew/character01/rot090"] == "val"
    assert home["ULOG/character26/rot270"] == "test"
    assert {info.group for info in contents.classes} == set(BACKGROUND) | set(EVALUATION)


def test_omniglot_by_the_split_of_lake(omniglot_zips: Path) -> None:
    contents = omniglot.OmniglotLake().read(omniglot_zips, omniglot_zips)
    alphabets = {part: {info.group for info in contents.classes if info.split == part} for part in PARTS}
    assert alphabets["test"] == set(EVALUATION)
    assert alphabets["train"] | alphabets["val"] == set(BACKGROUND)
    assert (len(alphabets["train"]), len(alphabets["val"])) == (25, 5)


def test_omniglot_turns_every_character_and_paints_ink_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alphabets = {f"Alphabet{i:02}": 2 for i in range(14)}
    monkeypatch.setitem(omniglot.CHARACTERS, "images_background", 28)
    path = write_omniglot(tmp_path, "images_background", alphabets)
    data.prepare("omniglot-background", path, root=tmp_path / "root")
    dataset = data.load("omniglot-background", tmp_path / "root")
    assert (dataset.train.num_classes, dataset.val.num_classes, dataset.test.num_classes) == (32, 40, 40)
    split = dataset.test
    for label, name in enumerate(split.class_names):
        upright = split.images[split.starts[label - label % 4]]
        turns = int(name[-3:]) // 90
        assert turns == label % 4
        images = split.images[split.labels == label]
        assert images.shape == (20, 28, 28, 1)
        np.testing.assert_array_equal(images[0], np.rot90(upright, turns))
        assert (split.groups[label], split.groups[label - turns]) == (name.split("/")[0],) * 2
    corner = split.images[0, :8, :2, 0]
    assert corner.min() > 200
    assert split.images[0, 10:20, 10:20].max() == 0
    assert split.normalization.augment == "none"


def test_omniglot_refuses_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_omniglot(tmp_path, "images_background", {"A": 3})
    with pytest.raises(DataError, match="has 3 characters, not 964"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")
    with pytest.raises(DataError, match=r"images_evaluation.zip does not exist.*brendenlake/omniglot"):
        data.prepare("omniglot", path, root=tmp_path / "root")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images_background/B/character01/0001_01.png", b"")
    with pytest.raises(DataError, match="B/character01 has 1 drawings, not 20"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")
    monkeypatch.setitem(omniglot.CHARACTERS, "images_background", 14)
    path = write_omniglot(tmp_path, "images_background", {f"Alphabet{i:02}": 1 for i in range(14)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"images_background.zip cannot be read"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")


# Mixture -------------------------------------------------------------------------------------------------------------


def prepare_part(root: Path, name: str, shape: tuple[int, int, int], seed: int, augment: str = "photo") -> None:
    from kshot.data.store import ClassInfo
    from kshot.data.writing import Contents, write

    classes = [ClassInfo(f"class {i}", "all", part, 3) for part in PARTS for i in range(*POSITIONS[part])]
    images = noise(3 * len(classes), *shape, seed=seed)
    labels = np.repeat(np.arange(len(classes)), 3)
    write(name, Contents(classes, shape, [(images, labels)], "test", augment=augment), root)


POSITIONS = {"train": (0, 4), "val": (4, 7), "test": (7, 10)}


def test_a_mixture_draws_each_task_from_one_domain(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    prepare_part(tmp_path, "signs", (8, 8, 1), 1, "none")
    prepare_part(tmp_path, "maps", (4, 4, 3), 2)
    data.prepare("mixture", name="all", parts=["photos", "signs", "maps"], root=tmp_path)
    mixture = data.load("all", tmp_path)
    parts = {name: data.load(name, tmp_path) for name in ("photos", "signs", "maps")}
    for split_name in PARTS:
        split = mixture.split(split_name)
        assert split.image_shape == (3, 8, 8)
        expected = [(name, own) for name in parts for own in parts[name].split(split_name).class_names]
        assert split.class_names == tuple(f"{name}/{own}" for name, own in expected)
        assert split.groups == tuple(name for name, _ in expected)
        rows = split.labels < parts["photos"].split(split_name).num_classes
        np.testing.assert_array_equal(split.images[rows], parts["photos"].split(split_name).images)
        grey = split.images[np.asarray(split.groups)[split.labels] == "signs"]
        np.testing.assert_array_equal(grey, np.repeat(parts["signs"].split(split_name).images, 3, -1))
        sampler = EpisodeSampler(split, TaskShape(3, 1, 1), 0)
        domains = np.asarray(split.groups)[sampler.rows(np.arange(200)).classes]
        assert (domains == domains[:, :1]).all()
        assert set(domains[:, 0]) == set(parts)
    assert mixture.train.normalization.augment == "none"


def test_a_mixture_resizes_like_pillow(tmp_path: Path) -> None:
    from kshot.data.sources.mixture import _fitted

    images = noise(4, 20, 20, 3)
    for side in (7, 13, 31):
        resized = _fitted(images, side, 3)
        pillow = [
            np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in images
        ]
        assert np.abs(resized.astype(int) - np.stack(pillow)).max() <= 1


def test_bad_mixtures_are_refused(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    for parts in (["photos"], ["photos", "photos"], []):
        with pytest.raises(ConfigError, match="at least two parts, all different"):
            data.prepare("mixture", name="all", parts=parts, root=tmp_path)
    with pytest.raises(DataError, match=r"'maps' is not prepared in .*kshot data prepare maps"):
        data.prepare("mixture", name="all", parts=["photos", "maps"], root=tmp_path)
    with pytest.raises(ConfigError, match="--parts A B"):
        data.prepare("mixture", name="all", root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


# The catalog ---------------------------------------------------------------------------------------------------------


def test_every_source_says_what_it_is_and_how_to_get_it(tmp_path: Path) -> None:
    entries = {entry.name: entry for entry in data.catalog(tmp_path)}
    assert list(entries) == list(SOURCES)
    for name, entry in entries.items():
        assert entry.description
        assert entry.classes
        assert entry.obtain
        assert (entry.prepared, entry.size_bytes) == (False, 0)
        if name != "glyphs":
            with pytest.raises(DataError, match=f"{name} is not prepared in .*kshot data prepare {name}"):
                data.load(name, tmp_path)


def test_the_catalog_lists_what_is_prepared_and_survives_damage(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    prepare_part(tmp_path, "signs", (8, 8, 1), 1)
    (tmp_path / "signs" / "meta.json").write_text("{")
    (tmp_path / ".photos.partial").mkdir()
    entries = {entry.name: entry for entry in data.catalog(tmp_path)}
    assert entries["photos"].prepared
    assert entries["photos"].classes == "4 / 3 / 3"
    assert entries["photos"].size_bytes == (tmp_path / "photos" / "images.npy").stat().st_size
    assert not entries["signs"].prepared
    assert "is damaged" in entries["signs"].description
    assert len(entries) == len(SOURCES) + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "nothing"}, "there is no dataset 'nothing'; choose one of: glyphs, cifar-fs"),
        ({"dataset": "cifar-fs", "size": 3}, "cifar-fs has no option 'size'; its options: none"),
        ({"dataset": "folder", "parts": ["a"]}, "no option 'parts'; its options: size, fractions, seed"),
        ({"dataset": "folder"}, "give the prepared dataset a name"),
        ({"dataset": "folder", "name": "cifar-fs"}, "name of a dataset of the catalog"),
        ({"dataset": "glyphs", "name": "cifar-fs"}, "name of a dataset of the catalog"),
        ({"dataset": "folder", "name": "../x"}, "must consist of letters"),
        ({"dataset": "folder", "name": ".x"}, "must consist of letters"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.prepare(**arguments, root=tmp_path)


def test_what_is_prepared_is_said_before_any_work(tmp_path: Path) -> None:
    prepare_part(tmp_path, "cifar-fs", (8, 8, 3), 0)
    with pytest.raises(DataError, match=r"cifar-fs is already prepared in .*--overwrite"):
        data.prepare("cifar-fs", tmp_path / "gone", root=tmp_path)
    with pytest.raises(DataError, match=r"gone does not exist"):
        data.prepare("cifar-fs", tmp_path / "gone", root=tmp_path, overwrite=True)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    with pytest.raises(DataError, match=r"no dataset 'phots' in .*glyphs, cifar-fs.*, photos"):
        data.load("phots", tmp_path)


# Real images ---------------------------------------------------------------------------------------------------------


def unpack(real_data: Path, destination: Path, part: str) -> Path:
    subprocess.run([sys.executable, str(real_data / "unpack.py"), str(destination), part], check=True)
    return destination


def test_real_cifar_fs(real_data: Path, tmp_path: Path) -> None:
    source = unpack(real_data, tmp_path, "cifar100")
    data.prepare("cifar-fs", source, root=tmp_path / "root")
    assert data.verify("cifar-fs", tmp_path / "root").startswith(
        "cifar-fs: 60000 images, classes: 64 train, 16 val, 20"
    )
    split = data.load("cifar-fs", tmp_path / "root").test
    content = pickle.loads((source / "cifar-100-python" / "train").read_bytes())
    names = pickle.loads((source / "cifar-100-python" / "meta").read_bytes())[b"fine_label_names"]
    label = split.class_names.index("worm")
    mine = np.asarray(content[b"fine_labels"]) == names.index(b"worm")
    expected = content[b"data"][mine].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(split.images[split.starts[label] :][:500], expected)
    assert split.groups[label] == "non-insect_invertebrates"


def test_real_omniglot_background(real_data: Path, tmp_path: Path) -> None:
    data.prepare("omniglot-background", real_data / "omniglot", root=tmp_path)
    dataset = data.load("omniglot-background", tmp_path)
    assert sum(dataset.split(part).num_classes for part in PARTS) == 4 * 964
    assert 0.03 < dataset.train.images.mean() / 255 < 0.2  # thin strokes of ink on an empty ground


@pytest.mark.slow
def test_real_groups_as_folders_and_as_a_mixture(real_data: Path, tmp_path: Path) -> None:
    source = unpack(real_data, tmp_path / "source", "groups")
    for name in ("dogs", "cards"):
        data.prepare("folder", source / name, name=name, size=32, root=tmp_path)
    data.prepare("mixture", name="both", parts=["dogs", "cards"], root=tmp_path)
    assert data.verify("both", tmp_path).startswith("both: 16630 images")
    assert store.load("both", tmp_path).train.tasks_within_groups
