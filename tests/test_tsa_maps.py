"""The maps of tasks by their optima (Z21 fig. 1b and c) against plain gradient descent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from tsa_toys import domains_data, toy_tsa_maml

from kshot.data.augmentation import prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import ConfigError
from kshot.experiments.task_maps import neighbours_of_domain, task_map, two_dimensions

SMALL = {"ways": 3, "shots": 2, "tasks": 12, "seed": 4, "method": "pca"}


def plain_optimum(network, images, labels, steps: int, rate: float) -> dict[str, torch.Tensor]:
    """The weights after plain gradient descent, BatchNorm with the statistics of the images."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    network.train()
    for _ in range(steps):
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        loss = cross_entropy(functional_call(network, weights | buffers, (images,)), labels)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        weights = {
            name: (weight - rate * gradient).detach().requires_grad_()
            for (name, weight), gradient in zip(weights.items(), gradients)
        }
    return weights


@pytest.mark.parametrize(("steps", "taken"), [(3, 3), (None, 2)])
def test_optima_are_those_of_plain_descent_from_theta_and_from_the_groups(steps: int | None, taken: int) -> None:
    learner, split = toy_tsa_maml(assignment_steps=2), domains_data().test
    sampler = EpisodeSampler(split, TaskShape(3, 2, 0), seed=4, within_domain=True)
    some = prepare_images(sampler.episodes(np.arange(2)), split.normalization)
    learner.start_groups(learner.eval().task_vectors(some))  # each task has the other's optimum for a neighbour
    rows = task_map({"tsa": learner}, split, steps=steps, **SMALL).rows
    assert {row["steps"] for row in rows} == {taken}
    numbers = np.asarray([row["task"] for row in rows])
    episodes = prepare_images(sampler.episodes(numbers), split.normalization)
    groups = torch.cat(learner.eval().by_chunk(learner.assigned, episodes)).tolist()
    assert len(set(groups)) == 2
    domains = np.asarray([row["domain"] for row in rows])
    for kind, networks in (
        ("parameters", [learner.network] * len(groups)),
        ("group_parameters", [learner.initializations[group] for group in groups]),
    ):
        vectors = []
        for network, images, labels in zip(networks, episodes.support, episodes.support_labels):
            weights = plain_optimum(network, images, labels, taken, learner.inner_rate)
            centre = dict(learner.network.named_parameters())
            vectors.append(torch.cat([(weights[name] - centre[name]).flatten() for name in learner.clustered]))
        points = torch.stack(vectors).detach().numpy()
        near = neighbours_of_domain(points, domains)
        assert np.mean(near == [row[f"{kind}_neighbour_of_domain"] for row in rows]) > 0.95
        plane = np.abs(two_dimensions(points, "pca", 4))  # whose axes may point either way
        found = np.abs([[row[f"{kind}_x"], row[f"{kind}_y"]] for row in rows])
        np.testing.assert_allclose(found, plane, rtol=1e-2, atol=1e-2 * plane.max())


def test_impossible_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="steps is 0"):
        task_map({"tsa": toy_tsa_maml()}, domains_data(), steps=0, **SMALL)
