"""The tasks of each step: which ones, in which order, and how they are prepared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_split
from training_toys import (
    OPTIONS,
    STEPS,
    ToyBackbone,
    toy_dataset,
    toy_learner,
    toy_train,
)

from kshot.data.augmentation import PhotoAugmentation, normalize, prepare_images
from kshot.data.dataset import Dataset, Normalization
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.learners import Supervised
from kshot.training.batches import StepTasks
from kshot.training.distributed import Processes


@pytest.mark.parametrize(("within_domain", "pure"), [(True, True), (False, False), (None, False)])
def test_training_and_validation_tasks_come_from_one_group(
    within_domain: bool | None, pure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[Any]] = {"train": [], "val": []}
    original = EpisodeSampler.rows

    def rows(sampler: EpisodeSampler, numbers: Any) -> Any:
        found = original(sampler, numbers)
        drawn[sampler.split.name].extend(np.asarray(sampler.split.domains)[found.classes])
        return found

    monkeypatch.setattr(EpisodeSampler, "rows", rows)
    names = {"train": "train", "val": "val", "test": "test", "train_val": "train+val"}
    splits = {key: make_split([10] * 8, name=name, domains=["a", "b"] * 4) for key, name in names.items()}
    toy_train(toy_learner(), Dataset("toy", **splits), max_epochs=1, within_domain=within_domain)
    for domains in drawn.values():
        assert len(domains) >= 8
        assert all(len(set(task)) == 1 for task in domains) == pure


def step_tasks(augmentation: PhotoAugmentation | None = None) -> StepTasks:
    split = toy_dataset().train
    sampler = EpisodeSampler(split, TaskShape(3, 2, 2), seed=0)
    return StepTasks(
        sampler,
        normalization=split.normalization,
        augmentation=augmentation,
        meta_batch=2,
        processes=Processes("cpu"),
    )


@pytest.mark.parametrize("prepared_at_once", [1, 2, 3, 5])
def test_blocks_of_steps_hold_the_same_tasks_wherever_they_start(prepared_at_once: int) -> None:
    one_by_one, in_blocks = step_tasks(PhotoAugmentation(1)), step_tasks(PhotoAugmentation(1))
    one_by_one._steps_at_once = one_by_one._prepared_at_once = 1
    in_blocks._steps_at_once, in_blocks._prepared_at_once = 3, prepared_at_once
    expected = list(one_by_one.steps(0, 8))
    for first in (0, 2, 3, 7):
        found = list(in_blocks.steps(first, 8))
        assert len(found) == 8 - first
        for one, other in zip(expected[first:], found):
            assert torch.equal(one.images(), other.images())
            assert torch.equal(one.classes, other.classes)
            np.testing.assert_array_equal(one.keys, other.keys)


def test_prepared_images_are_augmented_in_sequence_and_normalised() -> None:
    split = toy_dataset().train
    raw = EpisodeSampler(split, TaskShape(3, 2, 2), seed=0).episodes(np.arange(2))
    normalization = Normalization((0.4,), (0.2,))
    plain = prepare_images(raw, normalization)
    torch.testing.assert_close(plain.query, (raw.query.movedim(-1, 2).float() / 255 - 0.4) / 0.2)
    assert plain.support.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    augmentation = PhotoAugmentation(1)
    expected = normalize(augmentation(raw.images(), raw.keys), normalization)
    assert torch.equal(prepare_images(raw, normalization, augmentation=augmentation).images(), expected)


def test_steps_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, classes = toy_learner(), []
    original = learner.accumulate_gradients

    def accumulate_gradients(episodes: Episodes) -> Any:
        classes.append(episodes.classes)
        return original(episodes)

    learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    toy_train(learner, max_epochs=2)
    sampler = EpisodeSampler(toy_dataset().train, TaskShape(3, 2, 2), seed=0)
    expected = sampler.rows(np.arange(2 * STEPS * OPTIONS["meta_batch"])).classes
    np.testing.assert_array_equal(torch.cat(classes).numpy(), expected)


def test_supervised_epochs_pass_over_each_image_once() -> None:
    learner, seen = Supervised(ToyBackbone(), num_classes=8), []
    original = learner.accumulate_gradients

    def accumulate_gradients(episodes: Episodes) -> Any:
        seen.extend(episodes.support.flatten(1).sum(1).tolist())
        return original(episodes)

    learner.accumulate_gradients = accumulate_gradients  # type: ignore[method-assign]
    result = toy_train(learner, max_epochs=1, meta_batch=10, tasks_per_epoch=None)
    data = toy_dataset().train
    expected = normalize(torch.from_numpy(data.images), data.normalization).flatten(1).sum(1)
    assert result.history[0]["tasks"] == 80
    np.testing.assert_allclose(sorted(seen), sorted(expected.tolist()), rtol=1e-4, atol=1e-3)
