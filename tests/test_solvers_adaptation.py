"""Adaptations by name: heads on the features of a learner, and tune-all against a plain loop."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.solvers import (
    Adaptation,
    Attention,
    HeadAdaptation,
    LearntRidge,
    LinearHead,
    LogisticRegression,
    ScaledHead,
    SupportVectorMachine,
    TuneAll,
    adaptations,
    logistic_regression,
    nearest_centroid,
    ridge,
    svm,
)
from kshot.solvers.heads import class_means
from kshot.testing import check_adaptation


class Toy(nn.Module):
    """Convolution, BatchNorm, dropout, a parameter that features do not use and a buffer that they change."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalization = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.class_weights = nn.Parameter(torch.ones(4, 216))
        self.register_buffer("passes", torch.zeros(1))
        self.normalization.running_mean.normal_()
        self.normalization.running_var.uniform_(0.5, 2)

    def features(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.dropout(self.normalization(self.convolution(images)).relu()).flatten(1)


def episodes(tasks: int = 3, ways: int = 3) -> Episodes:
    """Unequal classes (2, 3 and 4 support images) and separable images."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.arange(ways) + 2
    labels = torch.repeat_interleave(torch.arange(ways), counts).expand(tasks, -1)
    query_labels = torch.arange(ways).repeat(tasks, 4)
    patterns = torch.randn(tasks, ways, 2, 8, 8, generator=generator, dtype=torch.float64)

    def draw(labels: Tensor) -> Tensor:
        chosen = patterns[torch.arange(tasks)[:, None], labels]
        return chosen + 0.3 * torch.randn(chosen.shape, generator=generator, dtype=torch.float64)

    classes, keys = torch.arange(ways).expand(tasks, -1), np.zeros(0, np.uint64)
    return Episodes(draw(labels), labels, draw(query_labels), query_labels, classes, keys)


@pytest.fixture
def learner() -> Toy:
    torch.manual_seed(0)
    return Toy().double()


def test_the_names_are_known() -> None:
    assert set(adaptations) >= {"logistic", "centroid", "ridge", "cosine", "svm", "tune-all"}
    assert adaptations["tune-all"]().options.items() >= {"learning_rate": 1e-3, "steps": 10}.items()


def test_an_adaptation_shows_its_options() -> None:
    assert repr(LogisticRegression(c=2.0)).startswith("LogisticRegression(c=2.0")
    assert repr(Attention()) == "Attention()"


QUICK = {"alpha-tim": {"steps": 50}, "pt-map": {"steps": 5}}


@pytest.mark.parametrize("name", adaptations)
def test_every_adaptation_keeps_the_contract(name: str) -> None:
    check_adaptation(adaptations[name], **QUICK.get(name, {}))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (Attention, {}),
        (TuneAll, {"normalize_means": False, "bias": True}),
        (LearntRidge, {"l2": 2.0}),
        (ScaledHead, {"heads": SupportVectorMachine(), "scale": 3.0}),
    ],
)
def test_the_adaptations_of_learners_keep_the_contract(cls: type[Adaptation], options: dict[str, Any]) -> None:
    check_adaptation(cls, **options)


class Broken(HeadAdaptation):
    """Breaks one promise of the contract at a time."""

    description = "broken"

    def __init__(self, *, fault: str) -> None:
        self.fault = fault
        self.passes_gradients = fault != "no gradients"

    def head(self, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
        head = (_unchecked if self.fault == "no checks" else nearest_centroid)(features, labels, ways)
        weight, bias = head.weight, head.bias
        if self.fault == "label 0 counts more":
            bias = bias + torch.arange(ways) * bias.abs().max()
        if self.fault == "tasks mix":
            weight = weight + weight.mean(0)
        if self.fault == "precision" and features.dtype == torch.float32:
            weight = 1.01 * weight
        if self.fault == "gradient":
            weight = weight.detach()
        if self.fault == "equal classes":
            first = features[:, :ways]
            weight, bias = 2 * first, -first.square().sum(-1)
        return Unchecked(weight, bias) if self.fault == "not finite" else LinearHead(weight, bias)

    def scores(self, learner: Any, episodes: Episodes) -> Tensor:
        scores = super().scores(learner, episodes)
        if self.fault == "queries mix":
            return scores - scores.mean(1, keepdim=True)
        return scores.float() if self.fault == "dtype" else scores


class Unchecked(LinearHead):
    """Scores that nobody looks at."""

    def scores(self, features: Tensor) -> Tensor:
        return features @ self.weight.mT + self.bias.unsqueeze(1)


def _unchecked(features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    prototypes = class_means(features, labels, ways)
    return LinearHead(2 * prototypes, -prototypes.square().sum(-1))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("label 0 counts more", "accuracy of only|permutation of the labels"),
        ("tasks mix", "accuracy of only|depend on the other tasks"),
        ("precision", "float32 and float64"),
        ("gradient", "finite differences"),
        ("no gradients", "passes_gradients is False, but"),
        ("equal classes", "accuracy of only"),
        ("queries mix", "depend on the other query images"),
        ("dtype", "scores of float64 features are torch.float32"),
        ("no checks", "a support set that lacks a class is not refused"),
        ("not finite", "query images of nan are not refused"),
    ],
)
def test_the_contract_finds_what_breaks_it(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_adaptation(Broken, fault=fault)


def test_adaptations_learn_separable_tasks_of_a_network_with_batch_norm(learner: Toy) -> None:
    tasks = episodes()
    for cls in adaptations.values():
        adaptation = cls()
        if isinstance(adaptation, HeadAdaptation):
            adaptation = adaptation.centred_at(learner.eval().features(tasks.support.flatten(0, 1)).mean(0))
        scores = adaptation.scores(learner.eval(), tasks)
        assert (scores.argmax(-1) == tasks.query_labels).double().mean() > 0.8


def test_each_adaptation_is_in_one_file_with_its_solver() -> None:
    places = {name: cls.__module__.rpartition(".")[2] for name, cls in adaptations.items()}
    assert "adaptation" not in places.values(), "the base classes alone are there"
    solvers = {"logistic": logistic_regression, "centroid": nearest_centroid, "ridge": ridge, "svm": svm}
    assert {name: solver.__module__.rpartition(".")[2] for name, solver in solvers.items()}.items() <= places.items()


def test_a_head_is_fitted_to_the_features_of_the_support_set(learner: Toy) -> None:
    tasks = episodes()
    with torch.no_grad():
        scores = adaptations["logistic"](c=1.5).scores(learner.eval(), tasks)
        for i in range(tasks.tasks):
            support, query = learner.features(tasks.support[i]), learner.features(tasks.query[i])
            head = logistic_regression(support[None], tasks.support_labels[i : i + 1], 3, c=1.5)
            torch.testing.assert_close(scores[i], head.scores(query[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("as_released", [False, True])
def test_tune_all_equals_a_plain_loop(steps: int, as_released: bool, learner: Toy) -> None:
    tasks = episodes()
    options = {"normalize_means": False, "bias": True} if as_released else {}
    scores = TuneAll(learning_rate=0.01, steps=steps, **options).scores(learner, tasks)
    for i in range(tasks.tasks):
        network, labels = copy.deepcopy(learner).eval(), tasks.support_labels[i]
        start = normalize(network.features(tasks.support[i]), dim=1).detach()
        means = torch.stack([start[labels == way].mean(0) for way in range(3)])
        head = nn.Linear(216, 3, dtype=torch.float64)
        head.weight.data = means if as_released else normalize(means, dim=1)
        head.bias.data.zero_()
        head.bias.requires_grad_(as_released)
        parameters = [*network.parameters(), *head.parameters()]
        optimizer = torch.optim.Adam([part for part in parameters if part.requires_grad], lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            cross_entropy(head(normalize(network.features(tasks.support[i]), dim=1)), labels).backward()
            optimizer.step()
        expected = head(normalize(network.features(tasks.query[i]), dim=1))
        torch.testing.assert_close(scores[i], expected.detach(), rtol=0, atol=1e-12)


def test_tune_all_leaves_the_learner_untouched(learner: Toy) -> None:
    learner.convolution.eval()
    before = copy.deepcopy(learner.state_dict())
    TuneAll(learning_rate=0.1, steps=3).scores(learner, episodes())
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert learner.training
    assert learner.dropout.training
    assert not learner.convolution.training


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_tune_all_works_where_gradients_are_off(without_gradients, learner: Toy) -> None:
    expected = TuneAll(steps=2).scores(learner, episodes())
    with without_gradients():
        scores = TuneAll(steps=2).scores(learner, episodes())
    torch.testing.assert_close(scores.clone(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{"learning_rate": 0.0}, {"steps": -1}])
def test_tune_all_refuses_impossible_options(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="tune-all needs"):
        TuneAll(**options)


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_logistic_regression_refuses_an_impossible_weight_before_it_is_used(c: float) -> None:
    with pytest.raises(ConfigError, match=f"c is {c}, but must be a positive number"):
        LogisticRegression(c=c)
