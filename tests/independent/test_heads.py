"""Heads that look at support images alone, against the papers' formulas, one task and one class after the other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from feature_tasks import DIMENSION, SIZES, check_head, draw_tasks, means, unit
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from kshot.errors import ConfigError
from kshot.solvers import BaselinePlusPlus, Cache, CentredCentroid, FineTune, PowerCentroid


def negative_squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    return torch.stack([torch.stack([-((x - centre) ** 2).sum() for centre in centres]) for x in query])


def test_simpleshot_centres_by_the_training_mean() -> None:
    mean = torch.linspace(0, 2, DIMENSION, dtype=torch.float64)

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit(support - mean), unit(query - mean)
        return negative_squared_distances(query, means(support, labels))

    check_head(CentredCentroid().centred_at(mean), plain)


def test_simpleshot_says_what_it_lacks() -> None:
    support, labels, _ = draw_tasks()
    with pytest.raises(ConfigError, match="mean over the training images, which is not known here"):
        CentredCentroid().head(support, labels, len(SIZES))
    with pytest.raises(ConfigError, match=r"mean feature is \(3,\), but features have 12 values"):
        CentredCentroid().centred_at(torch.zeros(3)).head(support, labels, len(SIZES))


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_power_centroid(power: float) -> None:
    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit((support + 1e-6) ** power), unit((query + 1e-6) ** power)
        return negative_squared_distances(query, means(support, labels))

    check_head(PowerCentroid(power=power), plain)


@pytest.mark.parametrize("sharpness", [1.0, 5.5, 30.0])
def test_cache_counts_the_votes_of_support_images(sharpness: float) -> None:
    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        votes = torch.zeros(len(query), len(SIZES), dtype=torch.float64)
        for place, x in enumerate(unit(query)):
            for key, label in zip(unit(support), labels):
                votes[place, label] += torch.exp(-sharpness * (1 - x @ key)) / (labels == label).sum()
        return votes.log()

    check_head(Cache(sharpness=sharpness), plain)


def left_out_likelihood(sharpness: float, support: Tensor, labels: Tensor) -> float:
    """The mean log-probability of support images, each left out in turn, of classes that have another one."""
    logs = []
    for place, label in enumerate(labels):
        rest = [other for other in range(len(labels)) if other != place]
        if label not in labels[rest]:
            continue
        votes = torch.zeros(len(SIZES), dtype=torch.float64)
        for other in rest:
            cosine = F.cosine_similarity(support[place], support[other], dim=0)
            votes[labels[other]] += torch.exp(-sharpness * (1 - cosine)) / (labels[rest] == labels[other]).sum()
        logs.append(torch.stack([(scale * votes.log()).log_softmax(0)[label] for scale in (1, 2, 4, 8, 16, 32, 64)]))
    return float(torch.stack(logs).mean(0).max())


def test_cache_learns_the_sharpness_by_leaving_images_out() -> None:
    support, labels, _ = draw_tasks()
    learnt = Cache(sharpness=None).head(support, labels, len(SIZES)).sharpness
    candidates = [1.0, 2.0, 4.0, 5.5, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0]
    for task in range(len(support)):
        values = {each: left_out_likelihood(each, support[task], labels[task]) for each in candidates}
        good = [each for each in candidates if values[each] >= max(values.values()) - 1e-3]
        assert learnt[task] == good[0]
    assert len(learnt.unique()) > 1, "the tasks ask for different ones"
    single = Cache(sharpness=None).head(support[:, :3], torch.arange(3).expand(3, 3), 3)
    assert single.sharpness.tolist() == [5.5] * 3


@pytest.mark.parametrize(("temperature", "rate"), [(1.0, 1e-2), (20.0, 1e-3)])
def test_fine_tune_is_adam_on_the_class_means(temperature: float, rate: float) -> None:
    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        prototypes = means(support, labels).requires_grad_()
        optimizer = torch.optim.Adam([prototypes], lr=rate)

        def cosines(images: Tensor) -> Tensor:
            return F.normalize(images, dim=1) @ F.normalize(prototypes, dim=1).T

        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(temperature * cosines(support), labels).backward()
            optimizer.step()
        return temperature * cosines(query).detach()

    check_head(FineTune(temperature=temperature, learning_rate=rate, steps=30), plain)


def test_baseline_plus_plus_is_a_weight_normalised_layer_under_sgd() -> None:
    """The release's: weight normalisation per class, and torch's SGD with momentum, dampening and weight decay."""

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        start = torch.rand(len(SIZES), DIMENSION, generator=generator, dtype=torch.float64)
        layer = nn.Linear(DIMENSION, len(SIZES), bias=False, dtype=torch.float64)
        layer.weight.data = (2 * start - 1) / DIMENSION**0.5
        layer = weight_norm(layer, dim=0)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=0.01)
        for _ in range(20):
            for batch in torch.randperm(len(support), generator=generator).split(4):
                optimizer.zero_grad()
                F.cross_entropy(3 * layer(unit(support[batch])), labels[batch]).backward()
                optimizer.step()
        return 3 * layer(unit(query)).detach()

    check_head(BaselinePlusPlus(scale=3.0, learning_rate=0.1, weight_decay=0.01, epochs=20, seed=7), plain)
