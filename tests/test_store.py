"""The prepared form: what is written is read back, and whatever fails leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kshot.data import store, writing
from kshot.data.classes import ClassInfo
from kshot.data.writing import Batch, Contents
from kshot.errors import DataError
from kshot.files import cache_root

# Not in the order of splits, and of unequal sizes.
CLASSES = [
    ClassInfo("owl", "birds", split="test", count=5),
    ClassInfo("cat", "mammals", split="train", count=3),
    ClassInfo("dog", "mammals", split="val", count=4),
    ClassInfo("elk", "mammals", split="train", count=7),
    ClassInfo("hen", "birds", split="val", count=2),
    ClassInfo("emu", "birds", split="test", count=6),
]


def pixels(classes: list[ClassInfo], shape: tuple[int, int, int] = (6, 5, 3)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {info.name: generator.integers(0, 256, (info.count, *shape), np.uint8) for info in classes}


def contents_of(classes: list[ClassInfo], images: dict[str, np.ndarray], batch: int = 4) -> Contents:
    """Batches that mix the classes, each class in its own order."""
    labels = np.concatenate([np.full(len(images[info.name]), index) for index, info in enumerate(classes)])
    stacked = np.concatenate([images[info.name] for info in classes])
    order = np.argsort(np.concatenate([np.arange(len(images[info.name])) for info in classes]), kind="stable")

    def batches() -> Iterator[Batch]:
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            yield stacked[rows], labels[rows]

    return Contents(classes, stacked.shape[1:], batches=batches(), origin="made by a test")


def entries(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_written_images_are_read_back_by_split_and_class(tmp_path: Path, batch: int) -> None:
    images = pixels(CLASSES)
    writing.write("zoo", contents_of(CLASSES, images, batch), root=tmp_path)
    dataset = store.load("zoo", tmp_path)
    expected = {"train": ["cat", "elk"], "val": ["dog", "hen"], "test": ["owl", "emu"]}
    expected["train+val"] = expected["train"] + expected["val"]
    for name, classes in expected.items():
        split = dataset.split(name)
        assert split.name == name
        assert split.class_names == tuple(classes)
        assert isinstance(split.images, np.memmap)
        assert split.domains == tuple({info.name: info.domain for info in CLASSES}[own] for own in classes)
        for label, own in enumerate(classes):
            np.testing.assert_array_equal(split.images[split.labels == label], images[own])
    assert entries(tmp_path) == ["zoo"]
    assert "27 images, classes: 2 train, 2 val, 2 test" in store.verify("zoo", tmp_path)


def test_normalization_is_that_of_the_training_images(tmp_path: Path) -> None:
    images = pixels(CLASSES)
    writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    train = np.concatenate([images["cat"], images["elk"]]).reshape(-1, 3) / 255
    normalization = store.load("zoo", tmp_path).train.normalization
    np.testing.assert_allclose(normalization.mean, train.mean(0), atol=1e-6)
    np.testing.assert_allclose(normalization.std, train.std(0), atol=1e-6)


def test_images_of_one_colour_keep_the_normalization_defined(tmp_path: Path) -> None:
    images = {info.name: np.full((info.count, 2, 2, 1), index, np.uint8) for index, info in enumerate(CLASSES)}
    images["cat"][:], images["elk"][:] = 9, 9
    writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    assert store.load("zoo", tmp_path).train.normalization.std == (pytest.approx(1 / 255, abs=1e-6),)


def test_tasks_within_domain_is_kept(tmp_path: Path) -> None:
    contents = replace(contents_of(CLASSES, pixels(CLASSES)), tasks_within_domain=True)
    writing.write("zoo", contents, root=tmp_path)
    assert store.load("zoo", tmp_path).test.tasks_within_domain


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([*CLASSES, ClassInfo("cat", "mammals", split="test", count=3)], "'cat' is in train and in test"),
        ([*CLASSES, ClassInfo("cat", "mammals", split="train", count=3)], "'cat' is in train and in train"),
        ([*CLASSES, ClassInfo("yak", "mammals", split="test", count=0)], "'yak' has no images"),
        (CLASSES[:-1], "test has fewer than 2 classes"),
    ],
)
def test_bad_class_lists_are_refused_before_anything_is_written(
    tmp_path: Path, classes: list[ClassInfo], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        writing.write("zoo", Contents(classes, (6, 5, 3), batches=iter([]), origin="test"), root=tmp_path)
    assert entries(tmp_path) == []


def test_one_class_under_two_names_in_two_splits_is_refused(tmp_path: Path) -> None:
    images = pixels(CLASSES)
    classes = [*CLASSES, ClassInfo("uhu", "birds", split="train", count=5)]
    images["uhu"] = images["owl"][::-1]
    with pytest.raises(DataError, match="'uhu' in train and class 'owl' in test hold the same images"):
        writing.write("zoo", contents_of(classes, images), root=tmp_path)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(("change", "message"), [(-1, "'dog' has 3 images, and 4 were"), (1, "more than the 4")])
def test_a_count_that_differs_is_refused(tmp_path: Path, change: int, message: str) -> None:
    images = pixels([replace(info, count=info.count + change * (info.name == "dog")) for info in CLASSES])
    with pytest.raises(DataError, match=message):
        writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    assert entries(tmp_path) == []


def test_images_of_another_shape_or_type_are_refused(tmp_path: Path) -> None:
    for strange in (np.zeros((1, 7, 5, 3), np.uint8), np.zeros((1, 6, 5, 3), np.float32)):
        contents = Contents(CLASSES, (6, 5, 3), batches=iter([(strange, np.asarray([0]))]), origin="test")
        with pytest.raises(DataError, match="not uint8"):
            writing.write("zoo", contents, root=tmp_path)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("labels", [[0, 6], [-1, 0], [0], [0, 1, 2]])
def test_labels_outside_the_range_are_refused(tmp_path: Path, labels: list[int]) -> None:
    batch = np.zeros((2, 6, 5, 3), np.uint8), np.asarray(labels)
    with pytest.raises(DataError, match=r"zoo: 2 images need as many labels in 0\.\.5"):
        writing.write("zoo", Contents(CLASSES, (6, 5, 3), batches=iter([batch]), origin="test"), root=tmp_path)
    assert entries(tmp_path) == []


def test_a_second_preparation_is_refused_and_overwriting_replaces(tmp_path: Path) -> None:
    images = pixels(CLASSES)
    writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    with pytest.raises(DataError, match="already prepared"):
        writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    changed = {name: 255 - array for name, array in images.items()}
    writing.write("zoo", contents_of(CLASSES, changed), root=tmp_path, overwrite=True)
    np.testing.assert_array_equal(store.load("zoo", tmp_path).train.images[:3], changed["cat"])
    assert entries(tmp_path) == ["zoo"]


def test_a_failed_overwriting_keeps_the_previous_dataset(tmp_path: Path) -> None:
    images = pixels(CLASSES)
    writing.write("zoo", contents_of(CLASSES, images), root=tmp_path)
    wrong = [replace(info, count=info.count + 1) for info in CLASSES]
    with pytest.raises(DataError, match="were expected"):
        writing.write("zoo", contents_of(wrong, images), root=tmp_path, overwrite=True)
    np.testing.assert_array_equal(store.load("zoo", tmp_path).train.images[:3], images["cat"])
    store.verify("zoo", tmp_path)
    assert entries(tmp_path) == ["zoo"]


PREPARE_AND_DIE = """
    import os, resource, signal, sys
    import numpy as np
    from kshot.data import writing
    from kshot.data.classes import ClassInfo
    from kshot.errors import DataError

    places = [(part, i) for part in ("train", "val", "test") for i in range(2)]
    classes = [ClassInfo(f"{part}-{i}", "all", split=part, count=50) for part, i in places]

    def batches():
        for label in range(6):
            if label == 3 and sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            yield np.full((50, 20, 20, 3), label, np.uint8), np.full(50, label)

    if sys.argv[2] == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        writing.write("zoo", writing.Contents(classes, (20, 20, 3), batches=batches(), origin="test"), root=sys.argv[1])
    except DataError as error:
        print(error)
"""


def run_and_die(root: Path, how: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(PREPARE_AND_DIE), str(root), how]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a matter of POSIX")
def test_a_killed_preparation_leaves_nothing_that_looks_prepared(tmp_path: Path) -> None:
    assert run_and_die(tmp_path, "kill").returncode == -signal.SIGKILL
    (leftover,) = entries(tmp_path)
    assert leftover.startswith(".zoo.")
    assert not store.is_prepared("zoo", tmp_path)
    with pytest.raises(DataError, match=r"'zoo' is not prepared in .*kshot data prepare zoo"):
        store.load("zoo", tmp_path)
    writing.write("zoo", contents_of(CLASSES, pixels(CLASSES)), root=tmp_path)
    assert entries(tmp_path) == ["zoo"]  # the leftover is cleared away


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are a matter of POSIX")
def test_a_write_that_fails_half_way_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    result = run_and_die(tmp_path, "full")
    assert "preparing zoo failed, and nothing was changed: File too large" in result.stdout, result.stderr
    assert entries(tmp_path) == []


def test_a_disk_that_is_too_small_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: writing.shutil._ntuple_diskusage(9, 9, 1000))
    with pytest.raises(DataError, match=r"zoo needs 0.00 GB in .*KSHOT_ROOT"):
        writing.write("zoo", contents_of(CLASSES, pixels(CLASSES)), root=tmp_path)
    assert entries(tmp_path) == []


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write to .*file.*--root"):
        writing.write("zoo", contents_of(CLASSES, pixels(CLASSES)), root=tmp_path / "file")


def test_memory_of_preparing_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    classes = [replace(info, count=500) for info in CLASSES]  # 3000 images of 28 kB: 84 MB
    batch = np.zeros((25, 96, 96, 3), np.uint8)
    batches = ((batch + np.uint8(label), np.full(25, label)) for label in range(6) for _ in range(20))
    tracemalloc.start()
    writing.write("zoo", Contents(classes, (96, 96, 3), batches=batches, origin="test"), root=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    return writing.write("zoo", contents_of(CLASSES, pixels(CLASSES)), root=tmp_path)


def test_verify_finds_a_single_changed_byte(zoo: Path) -> None:
    with open(zoo / "images.npy", "r+b") as file:
        file.seek(-1, 2)
        byte = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DataError, match=r"zoo is damaged: the checksum of images.npy differs; prepare it again"):
        store.verify("zoo", zoo.parent)


@pytest.mark.parametrize("keep", [0, 50, 1000])
def test_a_truncated_array_is_refused(zoo: Path, keep: int) -> None:
    content = (zoo / "images.npy").read_bytes()
    (zoo / "images.npy").write_bytes(content[:keep])
    for read in (store.load, store.verify):
        with pytest.raises(DataError, match=r"zoo is damaged: images.npy cannot be read"):
            read("zoo", zoo.parent)


def test_an_array_of_another_shape_is_refused(zoo: Path) -> None:
    np.save(zoo / "images.npy", np.zeros((3, 6, 5, 3), np.uint8))
    with pytest.raises(DataError, match=r"holds uint8 \(3, 6, 5, 3\), not uint8 \(27, 6, 5, 3\)"):
        store.load("zoo", zoo.parent)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 1', '"format": 99', "prepared in format 99, and this version of kshot reads format 1"),
        ('"sha256"', '"sha"', "meta.json cannot be read"),
        ('"split": "val"', '"split": "valley"', "meta.json cannot be read"),
        ("{", "", "meta.json cannot be read"),
        ('"count": 7', '"count": 8', "do not add up"),
        ('"name": "emu"', '"name": "cat"', "'cat' is in train and in test"),
    ],
)
def test_verify_refuses_a_changed_description(zoo: Path, old: str, new: str, message: str) -> None:
    text = (zoo / "meta.json").read_text()
    assert old in text
    changed = text.replace(old, new, 1)
    with contextlib.suppress(ValueError):  # what is behind the checksum is checked, too
        meta = json.loads(changed)
        changed = json.dumps(meta | {"checksum": store.checksum_of(meta)})
    (zoo / "meta.json").write_text(changed)
    with pytest.raises(DataError, match=message):
        store.verify("zoo", zoo.parent)


def test_the_stored_checksum_is_that_of_the_file(zoo: Path) -> None:
    from kshot.files import checksum

    assert json.loads((zoo / "meta.json").read_text())["sha256"] == checksum(zoo / "images.npy")


def test_the_root_is_the_argument_then_the_variable_then_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_ROOT", "/from/variable")
    assert cache_root("/from/argument") == Path("/from/argument")
    assert cache_root() == Path("/from/variable")
    monkeypatch.delenv("KSHOT_ROOT")
    assert cache_root().name == "kshot"
