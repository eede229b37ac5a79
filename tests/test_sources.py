"""Mixtures of domains, the catalog of all sources, and what preparing refuses; real images where they are at hand."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from source_files import PARTS, noise

import kshot.data as data
from kshot.data import store
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.errors import ConfigError, DataError

# Mixture -------------------------------------------------------------------------------------------------------------


def prepare_part(root: Path, name: str, shape: tuple[int, int, int], seed: int, augment: str = "photo") -> None:
    from kshot.data.classes import ClassInfo
    from kshot.data.writing import Contents, write

    classes = [ClassInfo(f"class {i}", "all", split=part, count=3) for part in PARTS for i in range(*POSITIONS[part])]
    images = noise(3 * len(classes), *shape, seed=seed)
    labels = np.repeat(np.arange(len(classes)), 3)
    write(name, Contents(classes, shape, batches=[(images, labels)], origin="test", augment=augment), root=root)


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
        assert split.domains == tuple(name for name, _ in expected)
        rows = split.labels < parts["photos"].split(split_name).num_classes
        np.testing.assert_array_equal(split.images[rows], parts["photos"].split(split_name).images)
        grey = split.images[np.asarray(split.domains)[split.labels] == "signs"]
        np.testing.assert_array_equal(grey, np.repeat(parts["signs"].split(split_name).images, 3, -1))
        sampler = EpisodeSampler(split, TaskShape(3, 1, 1), seed=0)
        domains = np.asarray(split.domains)[sampler.rows(np.arange(200)).classes]
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
    assert list(entries) == [*SOURCES, *FAMILIES]
    for name in SOURCES:
        entry = entries[name]
        assert entry.description
        assert entry.classes
        assert entry.obtain
        assert (entry.prepared, entry.size_bytes) == (False, 0)
        if not SOURCES[name].automatic:
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
    assert len(entries) == len(SOURCES) + len(FAMILIES) + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "nothing"}, "there is no dataset 'nothing'; choose one of: glyphs, cifar-fs"),
        ({"dataset": "cifar-fs", "size": 3}, "cifar-fs has no option 'size'; its options: none"),
        ({"dataset": "folder", "parts": ["a"]}, "no option 'parts'; its options: size, fractions, seed"),
        ({"dataset": "glyphs", "source": "x"}, "glyphs reads no files; leave out the source"),
        ({"dataset": "mixture", "source": "x", "parts": ["a", "b"]}, "mixture reads no files; leave out the source"),
        ({"dataset": "mixture", "name": "x"}, "mixture needs parts: kshot data prepare mixture --parts A B"),
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
    with pytest.raises(DataError, match=r"no dataset 'phots' in .*folder:PATH, glyphs, cifar-fs.*, photos") as raised:
        data.load("phots", tmp_path)
    assert "mixture" not in str(raised.value)
    with pytest.raises(DataError, match="cifar-fs is loaded by its name alone, and not with a path such as x"):
        data.load("cifar-fs:x", tmp_path)
    with pytest.raises(DataError, match="no dataset 'phots:x'"):
        data.load("phots:x", tmp_path)


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
    assert split.domains[label] == "non-insect_invertebrates"


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
    assert store.load("both", tmp_path).train.tasks_within_domain
