"""Closed-form and empirical kernels against high precision, direct integration, and per-point gradients."""

from __future__ import annotations

import functools
from typing import get_args

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from scipy import integrate
from torch import nn

from kshot.errors import ConfigError, DataError
from kshot.intervals import fit_power_law
from kshot.theory import ReLUNetwork, empirical_kernels, kernels
from kshot.theory.infinite_width import Network

NETWORKS = get_args(Network)


def points(count: int, dimension: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, dimension)))


def relu_moments(k11, k12, k22):
    """2 E[relu(u) relu(v)] and 2 E[relu'(u) relu'(v)] in mpmath's precision."""
    size = mp.sqrt(k11 * k22)
    cosine = min(max(k12 / size, mpf(-1)), mpf(1))
    angle = mp.acos(cosine)
    return size * (mp.sin(angle) + (mp.pi - angle) * cosine) / mp.pi, (mp.pi - angle) / mp.pi


def precise(x, y, depth: int, network: Network) -> tuple[float, float]:
    """NNGP and NTK of two points from the covariances of each layer, as the networks are defined, with 60 digits."""
    with mp.workdps(60):
        x, y = ([mpf(float(number)) for number in point] for point in (x, y))
        cov = [2 * sum(a * b for a, b in zip(p, q)) / len(x) for p, q in ((x, x), (x, y), (y, y))]
        if network == "residual-postnorm" and depth > 1:
            cov = [mpf(1), cov[1] / mp.sqrt(cov[0] * cov[2]), mpf(1)]
            ntk = cov[1]
        ntk = cov[1]
        for layer in range(depth - 1):
            last = layer == depth - 2
            inside = cov
            if network == "residual-prenorm":
                inside = [mpf(1), cov[1] / mp.sqrt(cov[0] * cov[2]), mpf(1)]
            ntk_inside = ntk * inside[1] / cov[1] if network == "residual-prenorm" else ntk
            branch, active = relu_moments(*inside)
            after = [inside[0], branch, inside[2]]
            if last or network == "relu":
                cov, ntk = after, branch + active * ntk_inside
            else:
                skip = {"residual": mpf(1) / 2, "residual-postnorm": mpf(1) / 2, "residual-prenorm": mpf(1)}[network]
                ntk = skip * (ntk + branch + active * ntk_inside)
                cov = [skip * (before + new) for before, new in zip(cov, after)]
        return float(cov[1]), float(ntk)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_kernels_agree_with_sixty_digits(network, depth):
    first, second = points(3), 1.7 * points(2, seed=1)
    found = kernels(first, second, depth=depth, network=network)
    wanted = np.array([[precise(x, y, depth, network) for y in second] for x in first])
    for kernel, values in zip(found, np.moveaxis(wanted, -1, 0)):
        np.testing.assert_allclose(kernel.numpy(), values, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("apart", [1e-3, 1e-7, 1e-11])
@pytest.mark.parametrize("sign", [1, -1])
def test_kernels_keep_their_digits_near_equal_and_opposite_points(network, apart, sign):
    first = points(1)
    second = sign * first + apart * points(1, seed=1)
    for depth in (2, 4, 50):
        found = kernels(first, second, depth=depth, network=network)
        wanted = precise(first[0], second[0], depth, network)
        np.testing.assert_allclose([kernel.item() for kernel in found], wanted, rtol=2e-14 * depth, atol=1e-15)


@pytest.mark.parametrize("network", NETWORKS)
def test_kernels_are_stable_at_depth_1000(network):
    first = points(2)
    found = kernels(first, depth=1000, network=network)
    wanted = precise(first[0], first[1], 1000, network)
    np.testing.assert_allclose([kernel[0, 1].item() for kernel in found], wanted, rtol=1e-11)
    assert all(torch.linalg.eigvalsh(kernel)[0] > 0 for kernel in kernels(points(6), depth=1000, network=network))


@pytest.mark.parametrize("depth", [1, 2, 7, 111, 1000])
def test_diagonal_of_the_ntk_is_exactly_depth_times_the_nngp(depth):
    nngp, ntk = kernels(points(50), depth=depth)
    assert torch.equal(ntk.diagonal(), depth * nngp.diagonal())
    torch.testing.assert_close(nngp.diagonal(), 2 * (points(50) ** 2).mean(-1), rtol=1e-15, atol=0)
    torch.testing.assert_close(ntk, ntk.mT, rtol=1e-14, atol=0)


def test_one_hidden_layer_is_the_gaussian_integral():
    first, second = points(2)
    covariance = 2 * np.stack([first, second]) @ np.stack([first, second]).T / 6
    inverse, scale = np.linalg.inv(covariance), 1 / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))

    def density(u: float, v: float) -> float:
        return scale * np.exp(-0.5 * np.array([u, v]) @ inverse @ np.array([u, v]))

    product = integrate.dblquad(lambda u, v: 2 * u * v * density(u, v), 0, 12, 0, 12)[0]
    both = integrate.dblquad(lambda u, v: 2 * density(u, v), 0, 12, 0, 12)[0]
    nngp, ntk = kernels(first[None], second[None], depth=2)
    assert nngp.item() == pytest.approx(product, rel=1e-6)
    assert ntk.item() == pytest.approx(product + both * covariance[0, 1], rel=1e-6)


def test_leading_shapes_broadcast():
    first, second = points(24).view(2, 3, 4, 6), points(10, seed=1).view(2, 1, 5, 6)
    found = kernels(first, second, depth=4)
    assert found.ntk.shape == (2, 3, 4, 5)
    for i, j in np.ndindex(2, 3):
        wanted = kernels(first[i, j], second[i, 0], depth=4).ntk
        torch.testing.assert_close(found.ntk[i, j], wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_finite_differences(network):
    first, second = points(3).requires_grad_(), points(2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: tuple(kernels(*given, depth=4, network=network)), (first, second))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("sign", [1, -1])
def test_gradients_at_equal_and_opposite_points_are_the_mean_of_both_sides(network, sign):
    first, direction = points(1), points(1, seed=1)
    at = (sign * first).requires_grad_()
    step = 1e-6
    for part in (0, 1):
        kernel = functools.partial(kernels, depth=5, network=network)
        gradient = torch.autograd.grad(kernel(first, at)[part].sum(), at)[0]
        sides = [kernel(first, at.detach() + move * direction)[part].item() for move in (step, -step)]
        assert gradient.isfinite().all()
        assert (gradient * direction).sum().item() == pytest.approx(
            (sides[0] - sides[1]) / (2 * step), rel=1e-4, abs=1e-5
        )


def test_bad_points_are_refused():
    good = points(3)
    with pytest.raises(ConfigError, match="depth is 0"):
        kernels(good, depth=0)
    with pytest.raises(ConfigError, match="choose one of: relu"):
        kernels(good, network="tanh")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"zero vector, at \[1\]"):
        kernels(good * torch.tensor([1, 0, 1])[:, None])
    with pytest.raises(DataError, match="not finite"):
        kernels(good, good / 0)
    with pytest.raises(DataError, match="dimension 6, those of x2 5"):
        kernels(good, good[:, :5])
    with pytest.raises(DataError, match="shape"):
        kernels(good[0])


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_approach_the_closed_form_at_the_rate_of_one_over_root_width(network):
    first, second = points(6), points(5, seed=1)
    widths = (32, 128, 512)
    for part in (0, 1):
        wanted = kernels(first, second, depth=3, network=network)[part]
        errors = []
        for width in widths:
            nets = [ReLUNetwork(6, width=width, depth=3, network=network, seed=seed) for seed in range(24)]
            found = torch.stack([empirical_kernels(net, first, second)[part] for net in nets])
            errors.append(float((found - wanted).square().mean().sqrt()))
            # the mean over networks is the closed form, up to O(1 / width) and the error of the mean
            assert float((found.mean(0) - wanted).abs().mean()) < 0.5 * errors[-1] + 4 / width
        assert fit_power_law(widths, errors).exponent == pytest.approx(-0.5, abs=0.12)


def by_autograd(model: nn.Module, first: torch.Tensor, second: torch.Tensor, weights: list) -> torch.Tensor:
    def jacobian(sample: torch.Tensor) -> torch.Tensor:
        rows = [torch.autograd.grad(output, weights, retain_graph=True) for output in model(sample[None])[0]]
        return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])

    return torch.stack([torch.stack([(jacobian(x) * jacobian(y)).sum(-1).mean() for y in second]) for x in first])


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Linear(9, 7, bias=False), nn.Tanh(), nn.Linear(7, 3)]
    return nn.Sequential(*layers).double()


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 2)]
    return nn.Sequential(*body).double().eval()


@pytest.mark.parametrize("method", ["auto", "layers", "jacobians"])
def test_empirical_kernels_are_products_of_gradients(method, monkeypatch):
    monkeypatch.setattr("kshot.theory.empirical._JACOBIAN_BYTES", 8000)  # in pieces of two points
    model, first, second = perceptron(), points(5), points(3, seed=1)
    found = empirical_kernels(model, first, second, method=method)
    torch.testing.assert_close(found.ntk, by_autograd(model, first, second, list(model.parameters())))
    torch.testing.assert_close(found.nngp, by_autograd(model, first, second, list(model[4].parameters())))
    model[2].weight.requires_grad_(False)
    model[4].bias.requires_grad_(False)
    rest = [weight for weight in model.parameters() if weight.requires_grad]
    found = empirical_kernels(model, first, second, method=method)
    torch.testing.assert_close(found.ntk, by_autograd(model, first, second, rest))
    several, others = points(12).view(2, 2, 3, 6), points(8, seed=1).view(2, 1, 4, 6)
    batched = empirical_kernels(model, several, others, method=method)
    assert batched.ntk.shape == batched.nngp.shape == (2, 2, 3, 4)
    torch.testing.assert_close(batched.ntk[1, 0], by_autograd(model, several[1, 0], others[1, 0], rest))


def test_empirical_kernels_of_images():
    model, images = convolutional(), points(5, 16).view(5, 1, 4, 4)
    found = empirical_kernels(model, images, images[:2], point_ndim=3)
    torch.testing.assert_close(found.ntk, by_autograd(model, images, images[:2], list(model.parameters())))
    torch.testing.assert_close(found.nngp, by_autograd(model, images, images[:2], list(model[4].parameters())))
    assert not found.ntk.requires_grad


def test_a_layer_that_is_called_twice_takes_the_general_way():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(6, 6).double(), nn.Linear(6, 1).double()

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return self.outer(self.inner(self.inner(given).tanh()).tanh())

    model, first = Twice(), points(4)
    torch.testing.assert_close(
        empirical_kernels(model, first).ntk, by_autograd(model, first, first, list(model.parameters()))
    )
    with pytest.raises(ConfigError, match="jacobians"):
        empirical_kernels(model, first, method="layers")


def test_models_whose_points_influence_one_another_are_refused():
    with pytest.raises(ConfigError, match=r"model.eval\(\)"):
        empirical_kernels(convolutional().train(), points(5, 16).view(5, 1, 4, 4), point_ndim=3)
    with pytest.raises(ConfigError, match="no layer"):
        empirical_kernels(nn.Identity(), points(5))
    with pytest.raises(ConfigError, match="choose one of: auto"):
        empirical_kernels(perceptron(), points(5), method="fast")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="differ in shape"):
        empirical_kernels(perceptron(), points(5), x2=points(5, 3))
    with pytest.raises(DataError, match="dimensions per point"):
        empirical_kernels(perceptron(), points(5)[0])
    with pytest.raises(DataError, match=r"outputs for a batch have shape \(1, 1, 6\)"):
        empirical_kernels(nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Linear(6, 6).double()), points(5))


def test_networks_of_no_size_are_refused():
    with pytest.raises(ConfigError, match="depth is 0"):
        ReLUNetwork(6, width=8, depth=0)
    with pytest.raises(ConfigError, match="choose one of"):
        ReLUNetwork(6, width=8, depth=3, network="conv")  # type: ignore[arg-type]
