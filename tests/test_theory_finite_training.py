"""Networks of finite width that gradient descent trains, by the kernels of infinite width and by plain loops."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from theory_toys import few_tasks

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.experiments import stable_rate, train_anil, train_mtl
from kshot.theory import (
    ReLUNetwork,
    kernels,
    predict_anil,
    predict_mtl,
)


def test_trained_networks_approach_the_predictors_with_width():
    tasks = few_tasks(points=2, test_tasks=8).scaled(0.1)
    kernel = functools.partial(kernels, depth=3)
    wanted = {
        "mtl": predict_mtl(kernel, tasks, time=0.3).values,
        "anil": predict_anil(kernel, tasks, time=0.3, inner_time=0.02).values,
    }
    assert float((wanted["mtl"] - wanted["anil"]).norm() / wanted["mtl"].norm()) > 0.03
    errors: dict[str, list[float]] = {"mtl": [], "anil": []}
    for width in (32, 1024):
        found: dict[str, list[float]] = {"mtl": [], "anil": []}
        for seed in range(3):
            network = ReLUNetwork(5, width=width, depth=3, seed=seed, dtype=torch.float32)
            rate = stable_rate(network, tasks)
            trained = {
                "mtl": train_mtl(network, tasks, rate=rate),
                "anil": train_anil(network, tasks, rate=rate, inner_time=0.02),
            }
            for name, result in trained.items():
                assert result.residual <= 1e-3
                values = result.predict(tasks, time=0.3)
                found[name].append(float((values - wanted[name]).norm() / wanted[name].norm()))
        for name, values in found.items():
            errors[name].append(float(np.mean(values)))
    for narrow, wide in errors.values():
        assert wide < narrow / 2.5  # 1 / 5.7 is expected
        assert wide < 0.06


@pytest.mark.parametrize("learner", ["mtl", "anil"])
def test_a_training_step_is_that_of_a_plain_loop_over_tasks(learner):
    tasks = few_tasks()
    inputs, targets = tasks.inputs, tasks.targets
    network = ReLUNetwork(5, width=16, depth=3, seed=1)
    plain = ReLUNetwork(5, width=16, depth=3, seed=1)
    heads = [plain.head.weight.detach().clone().requires_grad_() for _ in inputs]
    loss = torch.zeros((), dtype=torch.float64)
    for points, wanted, own in zip(inputs, targets, heads):
        head = own if learner == "mtl" else plain.head.weight
        aim = wanted + network(points).detach()[:, 0]
        for _ in range(3 if learner == "anil" else 0):
            inner = ((plain.features(points) @ head[0] - aim) ** 2).sum() / 2
            head = head - 0.02 / 3 * torch.autograd.grad(inner, head, create_graph=True)[0]
        loss = loss + ((plain.features(points) @ head[0] - aim) ** 2).sum() / 2
    shared = list(plain.hidden.parameters()) + ([plain.head.weight] if learner == "anil" else [])
    gradients = torch.autograd.grad(loss, shared, retain_graph=True)
    if learner == "mtl":
        trained = train_mtl(network, tasks, rate=1e-3, max_steps=1)
    else:
        trained = train_anil(network, tasks, rate=1e-3, inner_time=0.02, inner_steps=3, max_steps=1)
    for weight, start, gradient in zip(trained.network.parameters(), shared, gradients):
        torch.testing.assert_close(weight, start - 1e-3 * gradient, rtol=1e-10, atol=1e-12)
    if learner == "mtl":
        assert torch.equal(trained.network.head.weight, network.head.weight)


def test_training_ends_at_max_steps_and_stops_where_it_diverges():
    tasks = few_tasks()
    network = ReLUNetwork(5, width=16, depth=3)
    before = [weight.clone() for weight in network.parameters()]
    trained = train_mtl(network, tasks.scaled(0.01), rate=1e-3, max_steps=4)
    assert (trained.steps, trained.residual > 1e-3) == (4, True)
    assert all(torch.equal(weight, old) for weight, old in zip(network.parameters(), before))
    with pytest.raises(DivergenceError, match="lower the rate"):
        train_anil(network, tasks, rate=1.0, inner_time=0.01)
    with pytest.raises(ConfigError, match="0 inner steps"):
        train_anil(network, tasks, rate=1e-3, inner_time=0.01, inner_steps=0)
    with pytest.raises(ConfigError, match=r"rate is 0\.0, but must be positive"):
        train_mtl(network, tasks, rate=0.0)
    with pytest.raises(DataError, match="equal length"):
        train_mtl(network, replace(tasks, inputs=list(tasks.inputs)), rate=1e-3)
