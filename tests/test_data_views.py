"""What a person sees of datasets: their repr, names that are near, and pictures of tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_folder import write_tree
from test_sources import prepare_part

from kshot import data
from kshot.data.classes import ClassInfo
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.regression_sampler import RegressionSampler
from kshot.data.tasks import fitting_shape
from kshot.data.writing import Contents, write
from kshot.errors import ConfigError, DataError


def test_a_dataset_shows_its_name_classes_images_size_and_channels(toy_data):
    assert repr(toy_data).splitlines() == [
        "Dataset 'toy': 16x16 px, 1 channel",
        "  train 12 classes, 288 images (24 per class)",
        "  val   6 classes, 144 images (24 per class)",
        "  test  6 classes, 144 images (24 per class)",
    ]


def test_a_split_shows_its_classes_and_domains(toy_split):
    split = toy_split([4, 9, 9, 7, 5, 5, 5], channels=3, domains=["a"] * 3 + ["b"] * 4)
    assert repr(split).splitlines() == [
        "Split toy/train: 7 classes, 44 images (4 to 9 per class), 8x8 px, 3 channels",
        "  classes: train-class-0, train-class-1, train-class-2, train-class-3, train-class-4 and 2 more",
        "  domains: a (3), b (4)",
    ]


def test_samplers_and_tasks_show_their_shapes(toy_split):
    sampler = EpisodeSampler(toy_split([9] * 4), TaskShape(3, 2, 4), seed=7, within_domain=True)
    assert repr(sampler) == (
        "EpisodeSampler: 3-way 2-shot 4-query tasks of toy/train, seed 7, all classes of a task from one domain"
    )
    assert repr(sampler.episodes(np.arange(5))).splitlines() == [
        "Episodes: 5 3-way tasks on cpu",
        "  support (5, 6, 8, 8, 1) uint8",
        "  query (5, 12, 8, 8, 1) uint8",
    ]


def test_regression_shows_its_family():
    sinusoids = RegressionDataset(FAMILIES["sinusoids"])
    assert repr(sinusoids).startswith("RegressionDataset 'sinusoids': functions of 1 input, drawn as they are needed")
    assert repr(data.load("quadratics").val).startswith("RegressionSplit quadratics/val: functions of 10 inputs")
    sampler = RegressionSampler(sinusoids.test, TaskShape(1, 5, 10), seed=0)
    assert repr(sampler) == "RegressionSampler: tasks of sinusoids/test with 5 support and 10 query points, seed 0"
    assert "Episodes: 2 regression tasks" in repr(sampler.episodes(np.arange(2)))


def test_every_view_of_prepared_data_is_short(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    dataset = data.load("photos", tmp_path)
    for view in (dataset, dataset.train, dataset.train_val):
        assert len(repr(view)) < 400
        assert "array(" not in repr(view)


# Names --------------------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_near_ones(tmp_path: Path) -> None:
    prepare_part(tmp_path, "photos", (8, 8, 3), 0)
    for use in (data.load, data.load_images, data.verify):
        with pytest.raises(DataError, match=r"no dataset 'glyhps' in .* \(did you mean 'glyphs'\?\); choose one of"):
            use("glyhps", tmp_path)
        with pytest.raises(DataError, match=r"did you mean 'photos'\?"):
            use("phtos", tmp_path)
    with pytest.raises(ConfigError, match=r"no dataset 'ominglot' \(did you mean 'omniglot'\?\)"):
        data.prepare("ominglot", root=tmp_path)
    with pytest.raises(ConfigError, match=r"no option 'sise' \(did you mean 'size'\?\); its options: size, fractions"):
        data.prepare("folder", tmp_path, name="x", root=tmp_path, sise=3)


def test_commands_suggest_names(say) -> None:
    assert "no command 'shwo' (did you mean 'show'?)" in say("data", "shwo", "tiny")[2]
    assert "did you mean 'tiny'?" in say("data", "show", "tinny")[2]
    assert "did you mean 'tiny'?" in say("data", "verify", "tinny")[2]
    assert "did you mean 'glyphs'?" in say("data", "prepare", "glyph")[2]


# Pictures -----------------------------------------------------------------------------------------------------------


def small(root: Path, counts: dict[str, list[int]]) -> None:
    """Prepare `small` with classes of these many images."""
    generator = np.random.default_rng(0)
    classes = [
        ClassInfo(f"{part}-{number}", "all", split=part, count=count)
        for part, members in counts.items()
        for number, count in enumerate(members)
    ]
    batches = [
        (generator.integers(0, 256, (info.count, 8, 8, 1), np.uint8), np.full(info.count, label))
        for label, info in enumerate(classes)
    ]
    write("small", Contents(classes, (8, 8, 1), batches=batches, origin="test"), root=root)


@pytest.mark.parametrize(("images", "shots", "queries"), [(12, 5, 5), (7, 4, 3), (3, 2, 1), (1, 1, 0)])
def test_two_test_classes_of_few_images_are_shown(tmp_path, say, images, shots, queries):
    small(tmp_path / "root", {"train": [20] * 3, "val": [20] * 2, "test": [images, 20]})
    split = data.load("small", tmp_path / "root").test
    assert fitting_shape(split) == TaskShape(2, shots, queries)
    code, out, err = say("data", "show", "small", "--root", tmp_path / "root")
    assert (code, err) == (0, "")
    assert "wrote small-test.png" in out
    assert Image.open(tmp_path / "small-test.png").size[0] > 100
    assert fitting_shape(split, ways=2, shots=1) == TaskShape(2, 1, min(5, images - 1))
    assert say("data", "show", "small", "--ways", 3, "--root", tmp_path / "root")[0] == 2


def test_a_domain_bounds_the_ways_that_are_shown(toy_split):
    from dataclasses import replace

    split = replace(toy_split([9] * 9, domains=["a"] * 3 + ["b"] * 4 + ["c"] * 2), tasks_within_domain=True)
    assert fitting_shape(split).ways == 4
    EpisodeSampler(split, fitting_shape(split), seed=0)


def test_a_folder_is_shown_under_a_name_and_not_under_its_path(tmp_path, say, monkeypatch):
    tree = write_tree(tmp_path / "elsewhere" / "my tree")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, _ = say("data", "show", f"folder:{tree}", "--root", tmp_path / "root")
    assert code == 0
    (picture,) = (tmp_path / "here").iterdir()
    assert picture.name.startswith("folder-my_tree-")
    assert picture.name in out
