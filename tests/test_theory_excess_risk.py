"""Exact risks against plain integration, and the bounds against what they are proved from."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from theory_toys import generator, mixture_of, vectors

from kshot.experiments.excess_risk_measures import (
    EXPECTED_GRADIENT,
    coin_tosses,
    measure,
    squared_expected_gradient,
)
from kshot.theory import Bounds, Linear, Logistic, MixtureTasks
from kshot.theory.task_mixture import Family

FAMILIES = pytest.mark.parametrize("family", [Linear(0.7), Logistic()], ids=lambda family: family.name)


# The mixture and its risk


def sphere(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2), the first two coordinates, and weights of a product rule in spherical coordinates."""
    if dimension == 1:
        return np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 0.5])
    if dimension == 2:
        angles = 2 * np.pi * np.arange(4000) / 4000
        return np.stack([np.cos(angles), np.sin(angles)], 1), np.full(4000, 1 / 4000)
    nodes, weights = np.polynomial.legendre.leggauss(160)
    angles, weights = np.pi * (nodes + 1) / 2, weights / 2
    polar, azimuth = np.meshgrid(angles, angles, indexing="ij")
    points = np.stack([np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)
    density = np.outer(weights * np.sin(angles) ** (dimension - 2), weights * np.sin(angles) ** (dimension - 3))
    return points.reshape(-1, 2), (density / density.sum()).ravel()


def integrated_excess_risk(family: Family, theta: np.ndarray, optimum: np.ndarray) -> float:
    """The mean over inputs AND targets of the difference of the two losses."""
    points, weights = sphere(len(theta))
    basis = np.linalg.qr(np.stack([optimum, theta], 1))[0]
    coordinates = points[:, : basis.shape[1]] if len(theta) > 1 else points[:, :1]
    s, t = (coordinates @ (basis.T @ vector)[: coordinates.shape[1]] for vector in (theta, optimum))
    if isinstance(family, Linear):
        return float(weights @ ((s - t) ** 2 / 2))
    probability = 1 / (1 + np.exp(-t))
    cost_of_one, cost_of_zero = (np.logaddexp(0, sign * s) - np.logaddexp(0, sign * t) for sign in (-1, 1))
    return float(weights @ (probability * cost_of_one + (1 - probability) * cost_of_zero))


@FAMILIES
@pytest.mark.parametrize("dimension", [1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("length", [0.5, 4.0, 9.0])
def test_excess_risk_is_the_integral(family: Family, dimension: int, length: float) -> None:
    theta, optimum = vectors(4, dimension, length), vectors(4, dimension, 3.0, seed=1)
    expected = [integrated_excess_risk(family, *pair) for pair in zip(theta.numpy(), optimum.numpy())]
    np.testing.assert_allclose(family.excess_risk(theta, optimum), expected, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(Family.excess_risk(family, theta, optimum), expected, rtol=1e-7, atol=1e-12)


@FAMILIES
def test_the_optimum_has_the_least_risk(family: Family) -> None:
    optimum = vectors(3, 5, 4.0)
    tasks = MixtureTasks(family, optimum, torch.zeros(3, 1, 5), torch.zeros(3, 1))
    assert tasks.excess_risk(optimum).abs().max() < 1e-12
    assert tasks.population_gradient(optimum).abs().max() < 1e-7
    assert (tasks.excess_risk(optimum + 0.1 * vectors(3, 5, 1.0, seed=2)) > 1e-5).all()


@FAMILIES
def test_population_gradient_by_finite_differences(family: Family) -> None:
    theta, optimum = vectors(2, 4, 2.0), vectors(2, 4, 3.0, seed=1)
    tasks = MixtureTasks(family, optimum, torch.zeros(2, 1, 4), torch.zeros(2, 1))
    steps = 1e-5 * torch.eye(4, dtype=torch.float64)
    differences = [(tasks.excess_risk(theta + step) - tasks.excess_risk(theta - step)) / 2e-5 for step in steps]
    torch.testing.assert_close(tasks.population_gradient(theta), torch.stack(differences, 1), rtol=1e-6, atol=1e-9)


def test_an_optimum_at_the_origin_has_no_direction_but_a_risk() -> None:
    theta, zero = vectors(2, 5, 2.0), torch.zeros(2, 5, dtype=torch.float64)
    nearly = 1e-9 * vectors(2, 5, 1.0, seed=3)
    torch.testing.assert_close(Logistic().excess_risk(theta, zero), Logistic().excess_risk(theta, nearly))


@FAMILIES
def test_sampled_tasks_are_what_the_mixture_says(family: Family) -> None:
    mixture = mixture_of(family)
    tasks = mixture.sample(3000, generator(), shots=7)
    assert tasks.optimum.shape == (3000, 5)
    assert tasks.targets.shape == (3000, 7)
    torch.testing.assert_close(tasks.inputs.norm(dim=2), torch.ones(3000, 7, dtype=torch.float64))
    distances, group = torch.cdist(tasks.optimum, mixture.centres).min(1)
    torch.testing.assert_close(distances, torch.ones_like(distances))
    np.testing.assert_allclose(group.bincount() / 3000, 1 / 3, atol=0.04)
    torch.testing.assert_close(mixture.centres @ mixture.centres.T, 16 * torch.eye(3, dtype=torch.float64))
    expected = family.mean((tasks.inputs * tasks.optimum.unsqueeze(1)).sum(2))
    errors = tasks.targets - expected
    assert errors.mean().abs() < 0.02
    assert errors.abs().max() <= (0.7 if isinstance(family, Linear) else 1)
    again = mixture.sample(3000, generator(), shots=7)
    assert torch.equal(tasks.targets, again.targets)


@FAMILIES
def test_gradient_steps_equal_a_plain_loop_over_tasks(family: Family) -> None:
    tasks, start, rate = mixture_of(family).sample(4, generator(), shots=6), vectors(4, 5, 1.0), 0.8 / family.smoothness
    path = tasks.adapted(start, rate=rate, steps=3)
    for task in range(4):
        theta = start[task].clone().requires_grad_()
        for step in range(4):
            torch.testing.assert_close(path[step, task], theta.detach())
            losses = [
                (x @ theta - y).square() / 2 - y.square() / 2
                if isinstance(family, Linear)
                else torch.nn.functional.binary_cross_entropy_with_logits(x @ theta, y)
                for x, y in zip(tasks.inputs[task], tasks.targets[task])
            ]
            loss = torch.stack(losses).mean()
            torch.testing.assert_close(tasks.loss(path[step])[task], loss.detach())
            theta = (theta - rate * torch.autograd.grad(loss, theta)[0]).detach().requires_grad_()


# Constants and bounds


@FAMILIES
def test_lipschitz_constant_holds_on_the_way_and_is_reached(family: Family) -> None:
    tasks, rate = mixture_of(family).sample(200, generator(), shots=3), 1 / family.smoothness
    start = tasks.optimum + vectors(200, 5, 2.0)
    for step, theta in enumerate(tasks.adapted(start, rate=rate, steps=6)):
        scores = (tasks.inputs @ theta.unsqueeze(2)).squeeze(2)
        assert (family.mean(scores) - tasks.targets).abs().max() <= family.lipschitz(2.0, rate * step)
    worst = torch.nn.functional.normalize(start - tasks.optimum, dim=1)
    scores, true_scores = ((worst * weights).sum(1) for weights in (50 * start, tasks.optimum))
    if isinstance(family, Linear):
        scores = (worst * start).sum(1)
        steepest = (scores - (true_scores - family.noise)).abs()
        torch.testing.assert_close(steepest, torch.full_like(steepest, family.lipschitz(2.0, 0.0)))
    else:
        assert scores.abs().sigmoid().max() > 0.999 * family.lipschitz(2.0, 0.0)


def test_bounds_are_the_formulas() -> None:
    bounds = Bounds(lipschitz=3.0, smoothness=0.5, rate=0.8, shots=4, steps=2)
    rho = 1 + 2 * 0.8 * 0.5
    assert bounds.generalization() == pytest.approx(2 * 9 * (rho**2 - 1) / (4 * 0.5))
    assert bounds.optimization(5.0) == pytest.approx(5 / 1.6)
    assert bounds.expected_gradient(0.3) == pytest.approx(8 * 9 * (rho**2 - 1) ** 2 / 16 + 0.6)
    assert bounds.convex_generalization() == pytest.approx(2 * 0.8 * 9 * 2 / 4)
    assert bounds.convex_optimization(5.0) == pytest.approx(5 / 3.2)


def test_bounds_beyond_float64_are_infinite() -> None:
    for steps in (1000, 2000):
        bounds = Bounds(lipschitz=1.0, smoothness=1.0, rate=1.0, shots=10, steps=steps)
        assert bounds.expected_gradient(0.0) == float("inf")
    assert bounds.generalization() == float("inf")


@FAMILIES
def test_one_other_sample_moves_the_weights_no_further_than_the_bounds_say(family: Family) -> None:
    """What the first terms are proved from: with G, the distance bounds the risk beyond the risk on the samples."""
    mixture, rate, shots, steps = mixture_of(family), 1 / family.smoothness, 5, 8
    tasks = mixture.sample(500, generator(), shots=shots)
    start = tasks.optimum + vectors(500, 5, 1.5)
    inputs, targets = tasks.inputs.clone(), tasks.targets.clone()
    inputs[:, 0] = vectors(500, 5, 1.0, seed=4)
    targets[:, 0] = family.draw((inputs[:, 0] * tasks.optimum).sum(1), generator(5))
    other = MixtureTasks(family, tasks.optimum, inputs, targets)
    paths = [each.adapted(start, rate=rate, steps=steps) for each in (tasks, other)]
    apart = (paths[0] - paths[1]).norm(dim=2).amax(1)
    assert apart[1] > 0.05 / family.smoothness
    for count in range(steps + 1):
        bounds = Bounds(
            lipschitz=family.lipschitz(1.5, rate * count),
            smoothness=family.smoothness,
            rate=rate,
            shots=shots,
            steps=count,
        )
        assert apart[count] * bounds.lipschitz <= bounds.convex_generalization() + 1e-12
        assert bounds.convex_generalization() <= bounds.generalization()


def test_measured_gaps_add_up_and_bounds_stand_beside_them() -> None:
    tasks = mixture_of(Logistic()).sample(50, generator(), shots=10)
    start = torch.zeros_like(tasks.optimum)
    rows = list(measure(tasks, start, rate=4.0, shots=10, steps=[0, 3]))
    for row, steps in zip(rows, (0, 3)):
        theta = tasks.adapted(start, rate=4.0, steps=steps)[-1]
        assert row["excess_risk"] == pytest.approx(float(tasks.excess_risk(theta).mean()))
        assert row["generalization_gap"] + row["optimization_gap"] == pytest.approx(row["excess_risk"])
        assert row["optimization_gap"] == pytest.approx(float((tasks.loss(theta) - tasks.loss(tasks.optimum)).mean()))
        assert row["squared_distance"] == pytest.approx(float(tasks.optimum.square().sum(1).mean()))
        assert row["squared_gradient"] == pytest.approx(float(tasks.population_gradient(theta).square().sum(1).mean()))
        assert row["empirical_squared_gradient"] == pytest.approx(float(tasks.gradient(theta).square().sum(1).mean()))
        bounds = Bounds(lipschitz=1.0, smoothness=0.25, rate=4.0, shots=10, steps=steps)
        assert row["theorem1"] == pytest.approx(bounds.generalization() + bounds.optimization(row["squared_distance"]))
        assert row["theorem2"] == pytest.approx(bounds.expected_gradient(row["empirical_squared_gradient"]))


@pytest.mark.parametrize("shots", [1, 3, 6])
@pytest.mark.parametrize(("heads", "start", "steps"), [(0.5, None, 1), (0.8, None, 3), (0.3, 1.0, 2)])
def test_coin_tosses_are_the_sum_over_all_samples(shots: int, heads: float, start: float | None, steps: int) -> None:
    outcomes = torch.tensor(list(product([0.0, 1.0], repeat=shots)), dtype=torch.float64)
    optimum = torch.full((len(outcomes), 1), heads, dtype=torch.float64).logit()
    begin = optimum if start is None else torch.full_like(optimum, start)
    tasks = MixtureTasks(Logistic(), optimum, torch.ones(len(outcomes), shots, 1).double(), outcomes)
    chances = (heads**outcomes * (1 - heads) ** (1 - outcomes)).prod(1)
    (expected,) = measure(tasks, begin, rate=4.0, shots=shots, steps=[steps], weights=chances)
    row = coin_tosses(shots, heads=heads, start=start, steps=steps)
    expected_gradient = row.pop(EXPECTED_GRADIENT)
    assert row == pytest.approx(expected)
    theta = tasks.adapted(begin, rate=4.0, steps=steps)[-1, :, 0].numpy()
    gradients = 1 / (1 + np.exp(-theta)) - heads
    assert row["squared_gradient"] == pytest.approx(chances.numpy() @ gradients**2)
    assert expected_gradient == pytest.approx((chances.numpy() @ gradients) ** 2, rel=1e-9, abs=1e-30)


# The two readings of Theorem 2: brackets inside the norm, and outside


def test_theorem2_holds_on_coins_with_the_brackets_inside_the_norm() -> None:
    """Up to half of the bound, on long runs of a coin that almost always shows heads."""
    ratios = []
    for heads, shots, steps, rate, start in product(
        (0.5, 0.7, 0.9, 0.99, 0.999), (1, 4, 64, 1024), (1, 2, 5, 30), (1.0, 4.0), (None, 0.0)
    ):
        row = coin_tosses(shots, heads=heads, steps=steps, rate=rate, start=start)
        ratios.append(row[EXPECTED_GRADIENT] / row["theorem2"])
    assert len(ratios) == 320
    assert 0.45 < max(ratios) < 0.51
    fair = coin_tosses(1000)
    assert fair[EXPECTED_GRADIENT] < 1e-30


@pytest.mark.parametrize("heads", [0.5, 0.7])
def test_theorem2_fails_on_many_tosses_with_the_brackets_outside(heads: float) -> None:
    many, few = coin_tosses(1000, heads=heads), coin_tosses(20, heads=heads)
    assert many["squared_gradient"] == pytest.approx((heads * (1 - heads)) ** 3 * 16 / 1000, rel=0.02)
    assert many["squared_gradient"] > 1.5 * many["theorem2"]
    assert few["squared_gradient"] < few["theorem2"]


@FAMILIES
@pytest.mark.parametrize("shots", [2, 10, 50])
def test_theorem2_holds_on_regression_tasks_with_the_brackets_inside_the_norm(family: Family, shots: int) -> None:
    rate, steps, draws = 1 / family.smoothness, [0, 1, 2, 5, 10], 20
    tasks = mixture_of(family).sample(60, generator(), shots=shots, draws=draws)
    for start in (torch.zeros_like(tasks.optimum), tasks.optimum, tasks.optimum + vectors(1, 5, 1.0)):
        values = squared_expected_gradient(tasks, start, rate=rate, steps=steps, draws=draws)
        for row, value in zip(measure(tasks, start, rate=rate, shots=shots, steps=steps), values):
            assert value <= row["theorem2"] + 1e-12
            assert value <= row["squared_gradient"] + 1e-12


def test_mean_gradients_over_samples_are_estimated_without_bias() -> None:
    """From pairs of draws as from many, and as a plain mean over very many."""
    mixture, rate = mixture_of(Linear(0.7)), 1.0
    tasks = mixture.sample(4, generator(), shots=3, draws=2000)
    assert torch.equal(tasks.optimum[0], tasks.optimum[1999])
    assert not torch.equal(tasks.optimum[0], tasks.optimum[2000])
    start = torch.zeros_like(tasks.optimum)
    many, pairs = (squared_expected_gradient(tasks, start, rate=rate, steps=[2], draws=n)[0] for n in (2000, 2))
    gradients = tasks.population_gradient(tasks.adapted(start, rate=rate, steps=2)[-1]).view(4, 2000, 5)
    assert many == pytest.approx(float(gradients.mean(1).square().sum(1).mean()), rel=0.01)
    assert pairs == pytest.approx(many, rel=0.1)
    assert float(gradients.square().sum(2).mean()) > 1.2 * many
