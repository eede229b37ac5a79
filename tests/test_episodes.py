"""Tasks are a pure function of (seed, split, shape, index), drawn uniformly and without replacement."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from kshot import seeding
from kshot.data.augmentation import prepare_images
from kshot.data.drawing import draw_without_replacement
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.image_sampler import ImageSampler
from kshot.errors import ConfigError, DataError


def test_task_is_the_same_alone_in_a_batch_and_in_any_order(toy_split):
    split = toy_split([30, 25, 40, 33, 28, 31])
    sampler = EpisodeSampler(split, TaskShape(3, 2, 4), seed=7)
    together = sampler.rows(np.arange(50))
    for number in (0, 17, 49):
        alone = EpisodeSampler(split, TaskShape(3, 2, 4), seed=7).rows(np.asarray([number]))
        for field in ("support", "query", "classes", "keys"):
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[number])


def test_images_side_by_side_are_those_of_support_and_query_and_copied_only_if_they_must_be(toy_split):
    split = toy_split([30, 25, 40])
    raw = EpisodeSampler(split, TaskShape(3, 2, 4), seed=0).episodes(np.arange(4))
    seen = prepare_images(raw, split.normalization)
    for sampled in (raw, raw.part(1, 3), seen):
        separate = sampled.with_images(sampled.support.clone(), sampled.query.clone())
        swapped = sampled.with_images(sampled.query, sampled.support)
        shorter = sampled.with_images(sampled.support[:, :-1], sampled.query)
        tracked = sampled.with_images(sampled.support.float().clone().requires_grad_(), sampled.query.float())
        assert sampled.images().data_ptr() == sampled.support.data_ptr()
        for episodes in (sampled, separate, swapped, shorter, tracked):
            assert torch.equal(episodes.images(), torch.cat([episodes.support, episodes.query], 1))


def test_tasks_are_the_same_on_every_machine(toy_split):
    """A published result names its tasks by a seed alone, so these numbers may never change."""
    rows = EpisodeSampler(toy_split([30] * 20), TaskShape(5, 5, 15), seed=0).rows(np.arange(100))
    content = np.concatenate([rows.support.reshape(-1), rows.query.reshape(-1), rows.classes.reshape(-1)])
    assert hashlib.sha256(content.astype("<i8").tobytes()).hexdigest()[:16] == "e2e9541caeee3dad"


@pytest.mark.parametrize("change", ["seed", "split", "shots"])
def test_another_seed_split_or_shape_gives_other_tasks(toy_split, change):
    def classes(seed=0, name="train", shots=2):
        return (
            EpisodeSampler(toy_split([30] * 20, name=name), TaskShape(5, shots, 4), seed=seed)
            .rows(np.arange(40))
            .classes
        )

    other = classes(**{"seed": {"seed": 1}, "split": {"name": "val"}, "shots": {"shots": 3}}[change])
    assert (classes() != other).any(1).mean() > 0.9


def test_rows_belong_to_their_class_and_never_repeat(toy_split):
    counts = [6, 30, 9, 7, 100]
    split = toy_split(counts)
    rows = EpisodeSampler(split, TaskShape(5, 2, 4), seed=3).rows(np.arange(300))
    images = np.concatenate([rows.support, rows.query], 2)
    assert (split.labels[images] == rows.classes[..., None]).all()
    assert all(len(set(task)) == images[0].size for task in images.reshape(300, -1))
    smallest = images[rows.classes == 0]
    assert all(set(task) == set(range(6)) for task in smallest), "a class of K+Q images is used whole"


def test_draws_are_uniform_over_ordered_selections():
    keys = seeding.bits(seeding.key(1), np.arange(60_000))
    drawn = draw_without_replacement(keys, np.full(60_000, 5), 3)
    counts = Counter(map(tuple, drawn))
    assert len(counts) == 5 * 4 * 3
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_each_class_size_is_drawn_over_its_whole_range():
    keys = seeding.bits(seeding.key(2), np.arange(40_000))
    sizes = np.where(np.arange(40_000) % 2, 600, 3)
    drawn = draw_without_replacement(keys, sizes, 3)
    assert (np.sort(drawn[::2], 1) == np.arange(3)).all()
    assert stats.kstest(drawn[1::2].ravel() / 600, "uniform").statistic < 0.01


@pytest.mark.parametrize(
    ("keys", "draws"), [(3, 5), (3, 13), (2, 64), (2000, 30)]
)  # by swaps, from tables, and too many
def test_draws_are_those_of_a_shuffle_of_one_list(keys, draws):
    bits, sizes = seeding.bits(seeding.key(3), np.arange(keys)), np.resize([64, 600, 100], keys)
    for drawn, key, size in zip(draw_without_replacement(bits, sizes, draws), bits[:5], sizes):
        items = list(range(size))
        for j in range(draws):
            position = j + int(seeding.below(key, j, size - j)[0])
            items[j], items[position] = items[position], items[j]
        assert drawn.tolist() == items[:draws]


def test_groups_hold_a_task_together(toy_split):
    domains = ["a"] * 4 + ["b"] * 5 + ["small"] * 2
    split = toy_split([8] * 11, domains=domains)
    rows = EpisodeSampler(split, TaskShape(3, 1, 2), seed=0, within_domain=True).rows(np.arange(400))
    names = np.asarray(domains)[rows.classes]
    assert (names == names[:, :1]).all()
    share = Counter(names[:, 0])
    assert set(share) == {"a", "b"}
    assert 140 < share["a"] < 260


def test_gathered_episodes_hold_the_images_of_their_rows(toy_split):
    split = toy_split([10, 12, 9])
    sampler = EpisodeSampler(split, TaskShape(2, 3, 2), seed=5)
    rows, episodes = sampler.rows(np.arange(4)), sampler.episodes(np.arange(4))
    assert episodes.support.shape == (4, 6, 8, 8, 1)
    np.testing.assert_array_equal(episodes.query.numpy(), split.images[rows.query.reshape(4, -1)])
    np.testing.assert_array_equal(
        np.take_along_axis(rows.classes, episodes.support_labels.numpy(), 1), split.labels[rows.support.reshape(4, -1)]
    )
    assert episodes.labels().shape == (4, 10)


def test_too_many_ways_or_too_few_images_are_named(toy_split):
    split = toy_split([10, 12, 4])
    with pytest.raises(DataError, match="toy/train has 3 classes, too few for 5 ways; choose fewer ways"):
        EpisodeSampler(split, TaskShape(5, 1, 1), seed=0)
    with pytest.raises(DataError, match="'train-class-2' has 4 images, but 2 shots \\+ 3 queries need 5"):
        EpisodeSampler(split, TaskShape(2, 2, 3), seed=0)
    with pytest.raises(DataError, match=r"'train-class-2' has 4 images.* In all, 3 classes have") as raised:
        EpisodeSampler(split, TaskShape(2, 5, 10), seed=0)
    assert "'train-class-0' (10), 'train-class-1' (12), 'train-class-2' (4)" in str(raised.value)
    with pytest.raises(DataError, match="no domain has 2 classes"):
        EpisodeSampler(toy_split([9, 9], domains=["a", "b"]), TaskShape(2, 1, 1), seed=0, within_domain=True)
    with pytest.raises(ConfigError, match="shots is 0, but must be at least 1"):
        TaskShape(5, 0, 1)


def test_image_sampler_visits_every_image_once_an_epoch(toy_split):
    split = toy_split([10, 12, 4])
    sampler = ImageSampler(split, seed=0)
    visited = np.concatenate([sampler._rows(np.arange(start, start + 13)) for start in range(0, 52, 13)])
    first, second = visited[:26], visited[26:]
    assert sorted(first) == sorted(second) == list(range(26))
    assert (first != second).any()
    episodes = sampler.episodes(np.arange(20, 30))  # across the end of an epoch
    assert episodes.support.shape == (10, 1, 8, 8, 1)
    assert episodes.classes.shape == (10, 3)
    np.testing.assert_array_equal(episodes.support_labels[:, 0].numpy(), split.labels[visited[20:30]])


def test_seeding_is_uniform_and_depends_on_every_word():
    numbers = seeding.uniform(seeding.key(3, "x"), np.arange(100_000))
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    pairs = np.stack([numbers[:-1], numbers[1:]])
    assert abs(np.corrcoef(pairs)[0, 1]) < 0.01
    keys = {int(seeding.key(*words)) for words in [(0,), (1,), (0, 0), (0, "a"), ("a", 0), (0, "b"), (-1,)]}
    assert len(keys) == 7
