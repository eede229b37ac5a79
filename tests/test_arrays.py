"""Datasets of arrays in memory: what is kept, how classes are split, and that learners train on every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from learner_toys import build
from torch import Tensor, nn

from kshot.backbones import MLP
from kshot.backbones.registry import Backbone
from kshot.data import Dataset
from kshot.data.augmentation import normalize, prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.sources.base import packaged_splits
from kshot.errors import ConfigError, DataError
from kshot.evaluation import evaluate
from kshot.learners import learners
from kshot.training import train

CLASSES, PER_CLASS = 20, 12
SPLITS = {"train": range(12), "val": range(12, 16), "test": range(16, 20)}


def patterns(*shape: int, noise: float = 0.4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float arrays of 20 classes, each a random pattern plus noise, in shuffled order, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    prototypes = generator.normal(0, 1, (CLASSES, *shape))
    return prototypes[labels] + generator.normal(0, noise, (len(labels), *shape)), labels


def trained(learner: Any, data: Dataset, evaluation_tasks: int = 40, **options: Any) -> float:
    """Train for a moment; the accuracy on the test classes."""
    train(
        learner,
        data,
        **{"ways": 3, "shots": 2, "queries": 3, "max_epochs": 1, "tasks_per_epoch": 4, "meta_batch": 2} | options,
        validation_tasks=2,
        validation_ways=3,
        validation_queries=4,
        learning_rate=1e-3,
        progress=False,
    )
    return evaluate(learner, data.test, ways=3, shots=2, queries=4, tasks=evaluation_tasks).mean


# What is kept -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "shape", "image_shape"),
    [
        ("images", (6, 5), (1, 6, 5)),
        ("images", (6, 5, 3), (3, 6, 5)),
        ("vectors", (7,), (7, 1, 1)),
        ("series", (9,), (1, 1, 9)),
        ("series", (2, 9), (2, 1, 9)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int16, np.uint16])
def test_every_value_arrives_at_the_learner(
    kind: Any, shape: tuple[int, ...], image_shape: tuple[int, int, int], dtype: type[np.generic]
) -> None:
    values, labels = patterns(*shape)
    values = (200 + 20 * values).astype(dtype) if dtype != np.uint8 else (128 + 20 * values).clip(0, 255).astype(dtype)
    data = Dataset.from_arrays(values, labels, kind=kind, splits=SPLITS)
    assert data.train.image_shape == image_shape
    assert data.train.images.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    scale = 255 if dtype == np.uint8 else 1
    training = values[np.isin(labels, SPLITS["train"])].astype(np.float64) / scale
    for part, members in SPLITS.items():
        split = data.split(part)
        assert split.class_names == tuple(map(str, members))
        for position, label in enumerate(members):
            seen = normalize(split.gather(np.flatnonzero(split.labels == position)), split.normalization).numpy()
            given = values[labels == label].astype(np.float64) / scale
            # channels first, as a network takes them
            if kind == "images":
                mean, std = training.mean((0, 1, 2)), training.std((0, 1, 2))
                expected = ((given - mean) / std).reshape(-1, *shape[:2], image_shape[0]).transpose(0, 3, 1, 2)
            elif kind == "vectors":
                expected = ((given - training.mean(0)) / training.std(0))[:, :, None, None]
            else:
                by_channel = training.reshape(-1, image_shape[0], 9)
                mean, std = (part.reshape(-1, 1) for part in (by_channel.mean((0, 2)), by_channel.std((0, 2))))
                expected = ((given.reshape(-1, image_shape[0], 9) - mean) / std)[:, :, None]
            np.testing.assert_allclose(seen, expected, atol=2e-3)


def test_floating_point_images_are_gathered_alike_from_memory_and_from_a_device() -> None:
    values, labels = patterns(6, 5, 3)
    split = Dataset.from_arrays(values, labels, splits=SPLITS).train
    rows = np.asarray([[3, 0], [7, 3]])
    there = split.gather(rows)
    assert there.shape == (2, 2, 3, 6, 5)
    assert torch.equal(there, split.to("cpu").gather(rows))
    np.testing.assert_array_equal(there.numpy(), split.images[rows].transpose(0, 1, 4, 2, 3))


def test_support_and_query_of_floating_point_tasks_are_normalised_once() -> None:
    values, labels = patterns(4, 4)
    split = Dataset.from_arrays(1e6 + 1e3 * values, labels, splits=SPLITS).train
    episodes = EpisodeSampler(split, TaskShape(3, 2, 4), seed=0).episodes(np.arange(50))
    seen = prepare_images(episodes, split.normalization).images()
    assert abs(float(seen.mean())) < 0.2
    assert 0.8 < float(seen.std()) < 1.2


def test_a_constant_channel_is_zero_and_not_blown_up() -> None:
    values, labels = patterns(5)
    values[:, 2] = 0.1
    values[labels == SPLITS["test"][0], 2] = 0.3  # in the training classes it has no deviation
    data = Dataset.from_arrays(values, labels, kind="vectors", splits=SPLITS)
    train_seen, test_seen = (
        normalize(split.gather(np.arange(20)), split.normalization)[:, 2] for split in (data.train, data.test)
    )
    assert float(train_seen.abs().max()) < 1e-6
    assert float(test_seen.max()) == pytest.approx(0.2)


# How classes are split ----------------------------------------------------------------------------------------------


def test_labels_may_be_names_or_numbers_with_names() -> None:
    values, labels = patterns(5)
    names = [f"species {number:02}" for number in range(CLASSES)]
    domains = ["left", "right"] * (CLASSES // 2)
    by_number = Dataset.from_arrays(
        values,
        labels,
        kind="vectors",
        class_names=names,
        domains=domains,
        splits={part: [names[label] for label in members] for part, members in SPLITS.items()},
        tasks_within_domain=True,
    )
    by_name = Dataset.from_arrays(
        values,
        np.asarray(names)[labels],
        kind="vectors",
        domains=domains,
        splits={part: [names[label] for label in members] for part, members in SPLITS.items()},
        tasks_within_domain=True,
    )
    for part in ("train", "val", "test", "train+val"):
        one, other = by_number.split(part), by_name.split(part)
        assert one.class_names == other.class_names
        assert one.domains == other.domains == tuple(domains[names.index(name)] for name in one.class_names)
        assert one.tasks_within_domain
        np.testing.assert_array_equal(one.images, other.images)
    assert np.shares_memory(by_name.train.images, by_name.train_val.images)


def test_fractions_and_a_seed_choose_the_splits() -> None:
    values, labels = patterns(3)

    def homes(**options: Any) -> dict[str, str]:
        data = Dataset.from_arrays(values, labels, kind="vectors", **options)
        return {name: part for part in ("train", "val", "test") for name in data.split(part).class_names}

    chosen = homes()
    assert sorted(map(int, chosen)) == list(range(CLASSES))
    counts = [list(chosen.values()).count(part) for part in ("train", "val", "test")]
    assert counts == [13, 3, 4]
    assert chosen == homes(seed=0) != homes(seed=1)
    quarters = list(homes(fractions=(0.25, 0.5, 0.25)).values())
    assert quarters.count("val") == 10


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"kind": "vectors"}, DataError, r"vectors are an array \(M, D\).*not \(240, 4, 4\).*series \(M, T\) or"),
        ({"kind": "graphs"}, ConfigError, "kind is 'graphs'; choose one of: images, vectors, series"),
        ({"labels": np.zeros(3, int)}, DataError, r"labels must be 240 whole numbers or names.*not int64 \(3,\)"),
        ({"labels": np.zeros(240)}, DataError, "labels must be 240 whole numbers or names.*not float64"),
        ({"class_names": ["a", "b"]}, DataError, "labels go from 0 to 19, but 2 class_names"),
        ({"class_names": list(map(str, range(21)))}, DataError, "splits leaves out 1 classes: 20"),
        ({"domains": ["a"]}, DataError, "1 domains were given for 20 classes"),
        ({"splits": {"train": [0]}}, DataError, "splits leaves out 19 classes: 1, 2, 3"),
        ({"splits": SPLITS | {"test": [*range(15, 20)]}}, DataError, "has class '15' in val and in test"),
        ({"splits": SPLITS | {"test": [16, 99]}}, DataError, r"splits\['test'\] names '99', which is no class"),
        ({"splits": SPLITS | {"valid": [3]}}, ConfigError, "splits has valid; its keys are train, val, test"),
        ({"splits": {"train": range(19), "val": [19], "test": []}}, DataError, "val has fewer than 2 classes"),
        ({"splits": None, "fractions": (0.5, 0.5, 0.5)}, ConfigError, "with the sum 1"),
        ({"augment": "photo"}, ConfigError, "is for uint8 images of 1 or 3 channels, and these are float32"),
        ({"images": np.full((240, 4, 4), np.nan)}, DataError, "240 of 240 rows .* not finite.* the first is row 0"),
        ({"images": np.full((240, 4, 4), 1e300)}, DataError, "not finite in float32"),
        ({"images": np.full((240, 4, 4), "x")}, DataError, "the array holds <U1, but must hold real numbers"),
        ({"images": np.zeros((0, 4, 4))}, DataError, "with M of at least 1"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    values, labels = patterns(4, 4)
    with pytest.raises(error, match=message):
        Dataset.from_arrays(**{"images": values, "labels": labels, "splits": SPLITS} | changed)


def test_a_class_name_given_twice_is_refused() -> None:
    values, labels = patterns(4)
    names = ["twin", "twin", *map(str, range(2, CLASSES))]
    with pytest.raises(DataError, match="class 'twin' is in"):
        Dataset.from_arrays(values, labels, kind="vectors", class_names=names)


# Learners -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(learners))
def test_every_learner_trains_on_floating_point_images(name: str) -> None:
    values, labels = patterns(16, 16)
    data = Dataset.from_arrays(values, labels, splits=SPLITS)
    learner = build(name)
    result = trained(learner, data, tasks_per_epoch=2, max_epochs=1, evaluation_tasks=3)
    assert 0 <= result <= 1


@pytest.mark.parametrize("name", ["protonet", "mtl"])
def test_images_of_other_units_are_learnt_alike(name: str) -> None:
    """Normalised, levels and any multiples of them are the same numbers but for rounding."""
    values, labels = patterns(16, 16)
    levels = (128 + 40 * values).clip(0, 255).astype(np.uint8)
    accuracies = [
        trained(build(name), Dataset.from_arrays(images, labels, splits=SPLITS))
        for images in (levels, 1e-7 * levels.astype(np.float64), 3000 * levels.astype(np.int32) - 70_000)
    ]
    assert accuracies[0] > 0.45  # a third is chance
    assert max(accuracies) - min(accuracies) < 0.02


@pytest.mark.parametrize("name", ["protonet", "mtl", "metaoptnet", "maml"])
def test_learners_train_on_feature_vectors_with_the_mlp(name: str) -> None:
    values, labels = patterns(10, noise=0.2)
    data = Dataset.from_arrays(100 + 5 * values, labels, kind="vectors", splits=SPLITS)
    torch.manual_seed(0)
    channels, size, _ = data.train.image_shape
    options: dict[str, Any] = {"mtl": {"num_classes": data.train.num_classes}, "maml": {"ways": 3}}.get(name, {})
    learner = learners[name](MLP((32, 32), in_channels=channels, image_size=size), **options)
    assert trained(learner, data, max_epochs=2, tasks_per_epoch=20) > 0.6


class SeriesNetwork(Backbone):
    """Two convolutions over time, and their mean."""

    feature_size = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(channels, 16, 5), nn.ReLU(), nn.Conv1d(16, 16, 5), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, 1, T) to (M, 16)."""
        return self.layers(images.squeeze(2)).mean(-1)


@pytest.mark.parametrize("name", ["protonet", "maml"])
def test_learners_train_on_series_with_an_own_network(name: str) -> None:
    """Each class is a frequency with a random phase, in two channels."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    frequencies = 0.2 + 0.12 * generator.permutation(CLASSES)
    phases = generator.uniform(0, 2 * np.pi, (len(labels), 2, 1))
    series = np.sin(frequencies[labels, None, None] * np.arange(40) + phases)
    data = Dataset.from_arrays(series, labels, kind="series", splits=SPLITS)
    torch.manual_seed(0)
    options = {"ways": 3} if name == "maml" else {}
    learner = learners[name](SeriesNetwork(data.train.image_shape[0]), **options)
    assert trained(learner, data, max_epochs=2, tasks_per_epoch=20) > 0.45  # a third is chance


def test_packaged_splits_serve_as_splits_of_arrays() -> None:
    lists = packaged_splits("cifar-fs")
    names = [name for part in ("train", "val", "test") for name in lists[part]]
    data = Dataset.from_arrays(np.random.default_rng(0).normal(size=(100, 4)), names, kind="vectors", splits=lists)
    assert set(data.test.class_names) == set(lists["test"])
