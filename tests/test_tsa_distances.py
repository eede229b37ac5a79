"""Distances of tasks' optima (Z21 Theorem 1, Corollary 1) against plain gradient descent, and their correlation."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from test_tsa_maps import plain_optimum
from tsa_toys import domains_data, toy_tsa_maml

from kshot.data.augmentation import prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import ConfigError
from kshot.evaluation.protocol import evaluate
from kshot.experiments.optimum_distances import optimum_distances, rank_correlation
from kshot.intervals import mean_interval
from kshot.learners import ProtoNet

SMALL: dict[str, Any] = {"ways": 3, "shots": 2, "queries": 3, "tasks": 12, "seed": 4}


def with_groups() -> Any:
    """A learner whose two groups lie around the estimated optima of two tasks."""
    learner, split = toy_tsa_maml(), domains_data().test
    raw = EpisodeSampler(split, TaskShape(3, 2, 3), seed=4).episodes(np.arange(2))
    learner.start_groups(learner.eval().task_vectors(prepare_images(raw, split.normalization)))
    return learner


def test_distances_are_those_of_plain_descent_and_accuracies_those_of_an_evaluation() -> None:
    tsa_maml, split = with_groups(), domains_data().test
    learners = {"maml": tsa_maml.pretraining_learner(), "tsa": tsa_maml}
    findings = optimum_distances(learners, split, steps=2, optimum_steps=3, **SMALL)
    assert findings.figure().axes
    rows = {(row["run"], int(row["steps"])): row for row in csv.DictReader(io.StringIO(findings.csv()))}
    assert len(rows) == 6
    sampler = EpisodeSampler(split, TaskShape(3, 2, 3), seed=4)
    episodes = prepare_images(sampler.episodes(np.arange(12)), split.normalization)
    groups = torch.cat(tsa_maml.eval().by_chunk(tsa_maml.assigned, episodes)).tolist()
    assert len(set(groups)) == 2
    starts = {
        "maml": [tsa_maml.network] * 12,
        "tsa": [tsa_maml.initializations[group] for group in groups],
    }
    own: dict[str, np.ndarray] = {}
    optima: dict[str, list[torch.Tensor]] = {}
    for name, networks in starts.items():
        ends = [
            plain_optimum(network, images, labels, 3, tsa_maml.inner_rate)
            for network, images, labels in zip(networks, episodes.support, episodes.support_labels)
        ]
        optima[name] = [flat(end) for end in ends]
        begins = [flat(dict(network.named_parameters())) for network in networks]
        own[name] = squared(begins, optima[name])
        to_first = squared(begins, optima["maml"])
        for step in range(3):
            row = rows[name, step]
            assert float(row["squared_distance"]) == pytest.approx(own[name].mean(), rel=1e-3)
            assert float(row["squared_distance_ci95"]) == pytest.approx(mean_interval(own[name]).ci95, rel=1e-2)
            assert float(row["squared_distance_to_first"]) == pytest.approx(to_first.mean(), rel=1e-3)
            difference = own[name] - own["maml"]
            assert float(row["distance_difference"]) == pytest.approx(difference.mean(), rel=1e-3, abs=1e-6)
            learners[name].test_inner_steps = step
            accuracy = evaluate(learners[name], split, **SMALL).mean
            assert float(row["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    assert own["tsa"].mean() != pytest.approx(to_first.mean(), rel=0.01), "the two forms differ"
    assert f"tsa {own['tsa'].mean():.3f} ± " in findings.verdict


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in weights.values()])


def squared(first: list[torch.Tensor], second: list[torch.Tensor]) -> np.ndarray:
    return np.asarray([float((one - other).double().square().sum()) for one, other in zip(first, second)])


def test_the_support_loss_falls_on_the_way_to_the_optimum() -> None:
    learner = {"maml": toy_tsa_maml().pretraining_learner()}
    losses = [
        optimum_distances(learner, domains_data().test, steps=1, optimum_steps=steps, **SMALL).rows[0]["optimum_loss"]
        for steps in (1, 20)
    ]
    assert losses[1] < losses[0]


def test_rank_correlation_has_an_interval_that_covers_it() -> None:
    draws = np.random.default_rng(0)
    first = draws.normal(size=200)
    second = first + draws.normal(size=200)
    value, low, high = rank_correlation(first, second)
    assert value == pytest.approx(spearmanr(first, second).statistic)
    assert -1 < low < value < high < 1
    again = [rank_correlation(first[rows], second[rows])[0] for rows in draws.integers(0, 200, (400, 200))]
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(again), rel=0.2)
    assert np.isnan(rank_correlation(first, np.zeros(200))).all()
    assert np.isnan(rank_correlation(first[:3], second[:3])).all()


def test_learners_of_another_kind_or_architecture_are_refused() -> None:
    maml = toy_tsa_maml().pretraining_learner()
    with pytest.raises(ConfigError, match="other is a ProtoNet, whose steps are not those of MAML"):
        optimum_distances({"other": ProtoNet(maml.backbone)}, domains_data().test, **SMALL)
    other = toy_tsa_maml(8).pretraining_learner()
    few = SMALL | {"tasks": 2, "steps": 1, "optimum_steps": 1}
    with pytest.raises(ConfigError, match=r"wide adapts \d+ weights per task and maml \d+"):
        optimum_distances({"maml": maml, "wide": other}, domains_data().test, **few)
    with pytest.raises(ConfigError, match="optimum_steps is 0"):
        optimum_distances({"maml": maml}, domains_data().test, **SMALL | {"optimum_steps": 0})
