"""CIFAR-FS and FC100 from the official archive, its folder or a download, on small copies made here."""

from __future__ import annotations

import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from source_files import PARTS, noise

import kshot.data as data
from kshot.data.sources import cifar
from kshot.data.sources.base import packaged_splits
from kshot.errors import DataError


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
        assert split.domains == tuple(f"super{names.index(own) // 5}" for own in split.class_names)
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
    (tmp_path / "downloads").mkdir()
    shutil.copy(archive, tmp_path / "downloads")
    data.prepare("cifar-fs", tmp_path / "downloads", root=tmp_path / "from-folder")
    data.prepare("cifar-fs", archive, root=tmp_path / "root")
    # Without a source the same file is fetched, from its address, and kept for the other split.
    data.prepare("cifar-fs", root=tmp_path / "other")
    assert (tmp_path / "other/downloads/cifar-100-python.tar.gz").exists()
    monkeypatch.setattr(cifar, "URL", (tmp_path / "gone/cifar-100-python.tar.gz").as_uri())
    data.prepare("fc100", root=tmp_path / "other")
    for root in ("from-folder", "other"):
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


@pytest.mark.parametrize("field", ["data", "fine_labels"])
def test_cifar_of_other_types_is_refused_before_it_is_indexed(tmp_path: Path, field: str) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "test"
    content = pickle.loads(path.read_bytes())
    content[field] = np.asarray(content[field]).astype(object) if field == "data" else ["x"] * len(content[field])
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"pixels or labels of another type|an array of object"):
        cifar.CifarFS().read(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("meta", "fine_label_names", 5),
        ("meta", "coarse_label_names", [b"\xff"]),
        ("train", "fine_labels", 5),
        ("train", "coarse_labels", [10**6] * 5),
        ("test", "data", None),
    ],
)
def test_any_other_content_is_refused_by_the_name_of_the_files(
    tmp_path: Path, part: str, field: str, value: object
) -> None:
    write_cifar(tmp_path)
    content = pickle.loads((tmp_path / part).read_bytes())
    content[field] = value
    (tmp_path / part).write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=str(tmp_path)):
        data.prepare("cifar-fs", tmp_path, root=tmp_path / "root")
    assert not (tmp_path / "root" / "cifar-fs").exists()
