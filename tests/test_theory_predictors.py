"""Predictors against the printed formulas, gradient descent, and reference values."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from theory_toys import few_tasks

from kshot.errors import ConfigError, DataError
from kshot.experiments import ClosenessDepth
from kshot.intervals import fit_power_law, mean_interval
from kshot.theory import (
    ConditionWarning,
    Kernels,
    RegressionTasks,
    ReLUNetwork,
    adapt_head,
    empirical_kernels,
    kernels,
    predict_anil,
    predict_mtl,
    squared_distance_tasks,
)

KERNEL = functools.partial(kernels, depth=4)

# |F_ANIL - F_MTL| by depth: the mean over 5 runs of 20 test tasks that an independent program found on tasks of its own
REFERENCE = {10: 4.72, 20: 2.31, 30: 1.45, 50: 0.765, 70: 0.496, 90: 0.359, 110: 0.279}


def given(seed: int = 0, **shape) -> tuple[torch.Tensor, ...]:
    tasks = few_tasks(seed, **shape)
    return tasks.inputs, tasks.targets, tasks.support, tasks.support_targets, tasks.query


def blocks(kernel, first, second) -> tuple[np.ndarray, np.ndarray]:
    nngp, ntk = kernel(torch.as_tensor(first), torch.as_tensor(second))
    return nngp.numpy(), ntk.numpy()


def printed(inputs, targets, support, support_targets, query, time: float, inner_time: float) -> dict[str, np.ndarray]:
    """F_MTL and F_ANIL of one test task, block by block as in the paper, for tasks of any length."""
    count, every = len(inputs), np.concatenate([np.asarray(part) for part in targets])
    nngp_support, _ = blocks(KERNEL, support, support)
    nngp_query, _ = blocks(KERNEL, query, support)
    decay = expm(-time * nngp_support) if math.isfinite(time) else np.zeros_like(nngp_support)
    inverse = np.linalg.inv(nngp_support) @ (np.eye(len(support)) - decay)
    head = nngp_query @ inverse @ np.asarray(support_targets)
    own = [expm(-inner_time * blocks(KERNEL, points, points)[0]) for points in inputs]
    learnt = []
    for points, wanted, shrunk in zip(inputs, targets, own):
        nngp = blocks(KERNEL, points, points)[0]
        learnt.append(nngp @ np.linalg.inv(nngp) @ (np.eye(len(nngp)) - shrunk) @ np.asarray(wanted))
    mtl, anil, mtl_test, anil_test = [], [], [], []
    for i in range(count):
        pairs = [blocks(KERNEL, inputs[i], other) for other in inputs]
        mtl.append([ntk - (i != j) * nngp for j, (nngp, ntk) in enumerate(pairs)])
        anil.append([own[i] @ ntk @ own[j] for j, (_, ntk) in enumerate(pairs)])
        (nngp_at, ntk_at), (nngp_s, ntk_s) = blocks(KERNEL, query, inputs[i]), blocks(KERNEL, support, inputs[i])
        mtl_test.append(ntk_at - nngp_at - nngp_query @ inverse @ (ntk_s - nngp_s))
        anil_test.append((ntk_at - nngp_query @ inverse @ ntk_s) @ own[i])
    return {
        "mtl": head + np.hstack(mtl_test) @ np.linalg.inv(np.block(mtl)) @ every,
        "anil": head + np.hstack(anil_test) @ np.linalg.inv(np.block(anil)) @ (every - np.concatenate(learnt)),
    }


@pytest.mark.parametrize("time", [0, 0.1, math.inf])
@pytest.mark.parametrize("inner_time", [0, 0.05, 0.3])
def test_predictors_are_the_printed_formulas(time, inner_time):
    inputs, targets, support, support_targets, query = given()
    inputs, targets = [*inputs, inputs[0, :2] + 1], [*targets, targets[1, :2]]  # one task is shorter
    tasks = RegressionTasks(inputs, targets, support, support_targets, query)
    mtl = predict_mtl(KERNEL, tasks, time=time)
    anil = predict_anil(KERNEL, tasks, time=time, inner_time=inner_time)
    for task in range(len(support)):
        wanted = printed(inputs, targets, support[task], support_targets[task], query[task], time, inner_time)
        np.testing.assert_allclose(mtl.values[task], wanted["mtl"], rtol=1e-8)
        np.testing.assert_allclose(anil.values[task], wanted["anil"], rtol=1e-8)
    assert mtl.condition >= 1
    assert anil.condition >= 1


def test_the_condition_number_is_the_largest_among_the_systems_solved():
    tasks = few_tasks()
    points = tasks.inputs.flatten(0, 1)
    training = np.linalg.cond(KERNEL(points, points).ntk.numpy())
    found = predict_anil(KERNEL, tasks)
    assert found.condition == pytest.approx(training)
    close = tasks.support.clone()
    close[1, 1] = close[1, 0] + 1e-3
    of_head = np.linalg.cond(KERNEL(close[1], close[1]).nngp.numpy())
    found = predict_anil(KERNEL, replace(tasks, support=close), time=math.inf)
    assert found.condition == pytest.approx(of_head, rel=1e-6)
    assert of_head > training
    close[1, 1] = close[1, 0] + 5e-7
    with pytest.warns(ConditionWarning, match=r"condition number \d\.\de\+1\d, above 1e\+12"):
        predict_anil(KERNEL, replace(tasks, support=close), time=math.inf)


def test_lambda_tau_cancels():
    anil = [predict_anil(KERNEL, few_tasks(), inner_time=time).values for time in (0, 1e-3, 0.01, 0.1, 0.3)]
    steps = predict_anil(KERNEL, few_tasks(), inner_time=0.1, inner_steps=3).values
    for values in [*anil[1:], steps]:
        torch.testing.assert_close(values, anil[0], rtol=1e-8, atol=1e-8)


def test_vector_targets_are_scalar_targets_side_by_side():
    tasks = few_tasks()
    squares = replace(tasks, targets=tasks.targets**2, support_targets=tasks.support_targets**2)
    both = replace(
        tasks,
        targets=torch.stack([tasks.targets, squares.targets], -1),
        support_targets=torch.stack([tasks.support_targets, squares.support_targets], -1),
    )
    for predict in (predict_mtl, functools.partial(predict_anil, inner_time=0.1)):
        alone = predict(KERNEL, squares, time=0.2).values
        torch.testing.assert_close(predict(KERNEL, both, time=0.2).values[..., 1], alone, rtol=1e-10, atol=1e-10)
        assert alone.shape == tasks.query.shape[:-1]


@pytest.mark.parametrize("time", [0.0, 0.05, 2.0])
def test_adapted_head_is_gradient_descent_on_features(time):
    _, _, support, support_targets, query = given()
    generator = torch.Generator().manual_seed(0)
    lift = torch.randn(5, 9, generator=generator, dtype=torch.float64) / 3
    head = torch.zeros(len(support), 9, 1, dtype=torch.float64)
    steps = 20_000
    for _ in range(steps):
        residuals = support @ lift @ head - support_targets[..., None]
        head = head - time / steps * (support @ lift).mT @ residuals
    found = adapt_head(
        lambda a, b: Kernels(a @ lift @ lift.T @ b.mT, a[..., :1]),
        query=query,
        support=support,
        targets=support_targets,
        time=time,
    )
    torch.testing.assert_close(found.values, (query @ lift @ head)[..., 0], rtol=1e-3, atol=1e-6)


def test_adapted_head_fits_the_support_set_after_infinite_time():
    _, _, support, support_targets, query = given()
    found = adapt_head(KERNEL, query=support, support=support, targets=support_targets)
    torch.testing.assert_close(found.values, support_targets, rtol=1e-9, atol=1e-9)
    twice = torch.cat([support, support[:, :1]], 1)
    wanted = torch.cat([support_targets, support_targets[:, :1]], 1)
    test = {"query": query, "support": twice, "targets": wanted}
    assert adapt_head(KERNEL, **test, time=1e4).values.isfinite().all()
    with pytest.raises(DataError, match="singular"):
        adapt_head(lambda a, b: Kernels(torch.ones(3, a.shape[1], b.shape[1]), a), **test)


@pytest.mark.parametrize("training_time", [0.01, 1.0])
@pytest.mark.parametrize(("inner_time", "inner_steps"), [(0.0, None), (0.1, None), (0.1, 1), (0.1, 3)])
def test_finite_training_is_gradient_descent_through_the_inner_loop(training_time, inner_time, inner_steps):
    tasks = few_tasks()
    inputs, targets, query = tasks.inputs, tasks.targets, tasks.query
    points = inputs.flatten(0, 1)
    ntk, wanted = KERNEL(points, points).ntk, targets.flatten()
    own = torch.block_diag(*(inner_time * KERNEL(task, task).nngp for task in inputs))
    if inner_steps is None:
        decay = torch.linalg.matrix_exp(-own)
    else:
        decay = torch.linalg.matrix_power(torch.eye(len(own)) - own / inner_steps, inner_steps)
    weights = torch.zeros_like(wanted)
    for _ in range(10_000):
        weights = weights - training_time / 10_000 * decay @ (decay @ (ntk @ weights - wanted))
    values = (KERNEL(query.flatten(0, 1), points).ntk @ weights).view(query.shape[:-1])
    found = predict_anil(
        KERNEL, tasks, inner_time=inner_time, training_time=training_time, inner_steps=inner_steps
    ).values
    torch.testing.assert_close(found, values, rtol=4e-3, atol=1e-4)


def test_long_training_is_convergence():
    late = predict_mtl(KERNEL, few_tasks(), training_time=1e6).values
    torch.testing.assert_close(late, predict_mtl(KERNEL, few_tasks()).values, rtol=1e-8, atol=1e-8)


def test_predictors_take_the_kernels_of_a_network():
    network = ReLUNetwork(5, width=64, depth=3)
    found = predict_mtl(functools.partial(empirical_kernels, network), few_tasks(), time=0.1)
    assert found.values.shape == (3, 2)
    assert found.values.isfinite().all()


def test_reference_values_are_met():
    """Within the 95% interval of the difference between two means of 5 runs, this one's and the reference's."""
    rows = ClosenessDepth(depths=[10, 30, 70]).run().rows
    for row in rows:
        apart = abs(row["distance"] - REFERENCE[row["depth"]])
        assert apart < math.sqrt(2) * row["distance_ci95"] < 0.3 * row["distance"]


def test_synthetic_tasks():
    tasks = squared_distance_tasks(3, tasks=20_000, points=10, test_tasks=1)
    assert tasks.inputs.shape == (20_000, 10, 10)
    torch.testing.assert_close(tasks.inputs.square().mean(-1), torch.ones(20_000, 10, dtype=torch.float64))
    # E[nu |x - mu|^2] = E[nu^3] d, nu ~ U(1.3, 1.6)
    assert tasks.targets.mean().item() == pytest.approx(10 * (1.6**4 - 1.3**4) / (4 * 0.3), rel=0.01)
    assert torch.equal(squared_distance_tasks(3).query, squared_distance_tasks(3).query)
    assert not torch.equal(squared_distance_tasks(3).query, squared_distance_tasks(4).query)
    with pytest.raises(ConfigError, match="tasks is 0, but must be positive"):
        squared_distance_tasks(0, tasks=0)


def test_bad_tasks_are_refused():
    tasks = few_tasks()
    inputs, targets, support_targets = tasks.inputs, tasks.targets, tasks.support_targets

    def with_training(inputs, targets) -> RegressionTasks:
        return replace(tasks, inputs=inputs, targets=targets)

    with pytest.raises(DataError, match=r"differ in dimension: \[4, 5\]"):
        predict_mtl(KERNEL, with_training([inputs[0], inputs[1, :, :4]], targets[:2]))
    with pytest.raises(DataError, match="inputs of 4 tasks and targets of 3"):
        predict_anil(KERNEL, with_training(inputs, targets[:3]))
    with pytest.raises(DataError, match=r"training task 1: targets \(2,\) do not fit points \(3, 5\)"):
        predict_mtl(KERNEL, with_training(list(inputs[:2]), [targets[0], targets[1, :2]]))
    with pytest.raises(DataError, match="support: there are targets that are not finite"):
        predict_mtl(KERNEL, replace(tasks, support_targets=support_targets / 0))
    with pytest.raises(DataError, match="training targets have 1 numbers per point, support targets 2"):
        predict_mtl(KERNEL, replace(tasks, support_targets=support_targets[..., None].repeat(1, 1, 2)))
    with pytest.raises(DataError, match="differ in how many numbers"):
        predict_mtl(KERNEL, with_training(list(inputs[:2]), [targets[0], targets[1, :, None].repeat(1, 2)]))
    with pytest.raises(ConfigError, match="time is -1"):
        predict_mtl(KERNEL, tasks, time=-1)
    with pytest.raises(ConfigError, match="inner_time is nan"):
        predict_anil(KERNEL, tasks, inner_time=math.nan)
    with pytest.raises(ConfigError, match="inner_steps is 0"):
        predict_anil(KERNEL, tasks, inner_time=0.1, inner_steps=0)
    twice = inputs.clone()
    twice[1, 1] = twice[1, 0]
    with pytest.raises(DataError, match="training tasks is singular"):
        predict_anil(KERNEL, with_training(twice, targets))


def test_scaled_tasks_differ_in_their_targets_alone():
    tasks = few_tasks()
    scaled = replace(tasks, targets=list(tasks.targets)).scaled(0.5)
    assert torch.equal(scaled.inputs, tasks.inputs)
    assert torch.equal(torch.stack(list(scaled.targets)), 0.5 * tasks.targets)
    assert torch.equal(scaled.support_targets, 0.5 * tasks.support_targets)
    assert torch.equal(scaled.query_targets, 0.5 * tasks.query_targets)
    assert replace(tasks, query_targets=None).scaled(2).query_targets is None


def test_power_laws_and_intervals():
    x = np.array([1.0, 2, 5, 10])
    law = fit_power_law(x, 3 * x**-1.5)
    assert (law.exponent, law.factor) == (pytest.approx(-1.5), pytest.approx(3))
    assert law.ci95 == pytest.approx(0, abs=1e-6)
    several = fit_power_law(x, [x**-1, x**-2.0, x**-1.5])
    assert several.exponent == pytest.approx(-1.5)
    assert several.ci95 == pytest.approx(4.302653 * 0.5 / math.sqrt(3), rel=1e-6)
    assert mean_interval([1.0, 2, 3, 4]) == (2.5, pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-6))
    assert math.isnan(mean_interval([1.0])[1])
    with pytest.raises(DataError, match="positive"):
        fit_power_law(x, x - 2)
    with pytest.raises(DataError, match="three points, not 2"):
        fit_power_law(x[:2], x[:2])
