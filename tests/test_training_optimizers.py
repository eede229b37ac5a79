"""Optimisers and schedules by name are torch's own with the options that recipes name."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from kshot.errors import ConfigError
from kshot.training.optimizers import advance, make_optimizer, make_schedule
from kshot.training.options import ResolvedOptions, TrainingOptions

EXPECTED: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "radam": (torch.optim.RAdam, {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.0}),
    "sgd": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.01}),
    "adamax": (torch.optim.Adamax, {"lr": 0.02}),
}


def make(name: Any, parameters: Any, learning_rate: float, **options: Any) -> torch.optim.Optimizer:
    return make_optimizer(parameters, TrainingOptions(optimizer=name, learning_rate=learning_rate, **options))


def descend(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor:
    target = torch.arange(6.0).view(2, 3)
    for _ in range(8):
        optimizer.zero_grad()
        (weight - target).square().sum().backward()
        optimizer.step()
    return weight.detach()


def test_gradients_are_clipped_entry_by_entry() -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimizer = make("sgd", [weight], 1.0, momentum=0.0, clip_gradient_value=10.0)
    weight.grad = torch.tensor([3.0, -4.0, 25.0, -1e6])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-3.0, 4.0, -10.0, 10.0]))


def test_gradients_are_shortened_all_together() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    optimizer = make("sgd", weights, 1.0, momentum=0.0, clip_gradient_norm=0.5)
    for gradients, length in (([[3.0, 0.0], [4.0]], 0.5), ([[0.0, 0.3], [0.0]], 0.3)):
        for weight, gradient in zip(weights, gradients):
            weight.grad = torch.tensor(gradient)
        before = torch.cat([weight.detach().clone() for weight in weights])
        optimizer.step()
        moved = before - torch.cat([weight.detach() for weight in weights])
        direction = torch.tensor([*gradients[0], *gradients[1]])
        torch.testing.assert_close(moved, length * direction / direction.norm(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_optimisers_are_those_of_torch(name: Any) -> None:
    cls, options = EXPECTED[name]
    own, reference = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    optimizer = make(name, [own, frozen], 0.01)
    assert len(optimizer.param_groups[0]["params"]) == 1
    assert torch.equal(descend(optimizer, own), descend(cls([reference], **options), reference))


def test_options_of_sgd() -> None:
    own, reference = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    optimizer = make("sgd", [own], 0.1, weight_decay=5e-4, momentum=0.8, nesterov=True)
    expected = torch.optim.SGD([reference], lr=0.1, weight_decay=5e-4, momentum=0.8, nesterov=True)
    assert torch.equal(descend(optimizer, own), descend(expected, reference))
    with pytest.raises(
        ConfigError, match="momentum and nesterov belong to sgd, sgdp, sgdw, muon; leave them out for radam"
    ):
        make("radam", [own], 0.1, momentum=0.5)


@pytest.mark.parametrize("name", ["sgdp", "sgdw", "adabound", "adamp"])
def test_optimisers_of_the_extra_package(name: Any) -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    before = (weight.detach() - torch.arange(6.0).view(2, 3)).square().sum()
    after = (descend(make(name, [weight], 0.01), weight) - torch.arange(6.0).view(2, 3)).square().sum()
    assert after < before


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ConfigError, match=r"pip install kshot\[optimizers\]"):
        make("adamp", [nn.Parameter(torch.ones(1))], 0.1)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, [1, 1, 1, 1, 1]),
        ("step", {"milestones": [1, 3], "factor": 0.5}, [1, 0.5, 0.5, 0.25, 0.25]),
        ("step", {"milestones": [1, 3], "factor": [0.06, 0.2]}, [1, 0.06, 0.06, 0.012, 0.012]),
        ("step", {"step_every": 2, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25]),
        ("cosine", {}, [(1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]),
        ("linear", {}, [1, 0.8, 0.6, 0.4, 0.2]),
        ("plateau", {"plateau_patience": 1, "factor": 0.1}, [1, 1, 1, 0.1, 0.1]),
    ],
)
def test_learning_rates_of_five_epochs(name: Any, options: dict[str, Any], expected: list[float]) -> None:
    optimizer = make("sgd", [nn.Parameter(torch.ones(1))], 0.1)
    schedule = make_schedule(optimizer, ResolvedOptions(schedule=name, max_epochs=5, **options))
    rates = []
    for accuracy in (0.5, 0.4, 0.4, 0.4, 0.4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        advance(schedule, accuracy)
    assert rates == pytest.approx([0.1 * part for part in expected])


def orthogonal_by_hand(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """What five steps of Muon's quintic make of the singular values."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert values.min() > 0.6
    assert values.max() < 1.3
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_turns_convolutions_and_is_sgd_elsewhere(nesterov: bool) -> None:
    """Step by step as in its docstring, in float64; the quintic on singular values in the place of matrices."""
    generator = np.random.default_rng(0)
    shapes = [(5, 3, 2, 2), (12, 1, 3, 3), (4,), (2, 3)]
    weights = [nn.Parameter(torch.from_numpy(generator.normal(size=shape))) for shape in shapes]
    expected = [weight.detach().numpy().copy() for weight in weights]
    averages = [np.zeros(shape) for shape in shapes]
    optimizer = make("muon", weights, 0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.01)
    for _ in range(4):
        for i, weight in enumerate(weights):
            gradient = generator.normal(size=shapes[i])
            weight.grad = torch.from_numpy(gradient)
            decayed = gradient if weight.ndim == 4 else gradient + 0.01 * expected[i]
            averages[i] = 0.8 * averages[i] + decayed
            direction = decayed + 0.8 * averages[i] if nesterov else averages[i]
            if weight.ndim == 4:
                rows = direction.reshape(len(direction), -1)
                length = np.sqrt((expected[i] ** 2).sum())
                turn = orthogonal_by_hand(rows).reshape(shapes[i])
                expected[i] = expected[i] * np.sqrt(len(rows)) / length - 0.05 * turn
            else:
                expected[i] = expected[i] - 0.1 * direction
        optimizer.step()
    for weight, by_hand in zip(weights, expected):
        np.testing.assert_allclose(weight.detach().numpy(), by_hand, rtol=0, atol=1e-6)


def test_muon_is_orthogonal_in_bfloat16_when_training_is() -> None:
    """Within the rounding of bfloat16 of the steps in float32, and not equal to them; weights stay float32."""
    start, gradient = torch.randn(2, 12, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    turned = {}
    for precision in ("float32", "bf16"):
        weight = nn.Parameter(start.clone())
        weight.grad = gradient.clone()
        make("muon", [weight], 0.2, precision=precision).step()
        assert weight.dtype == torch.float32
        turned[precision] = weight.detach()
    error = (turned["bf16"] - turned["float32"]).norm() / (0.1 * 12**0.5)  # of a turn whose singular values are near 1
    assert 1e-4 < error < 0.05


def test_muon_leaves_alone_what_has_no_gradient_and_takes_no_closure() -> None:
    weight = nn.Parameter(torch.ones(2, 2, 1, 1))
    optimizer = make("muon", [weight], 0.1)
    optimizer.step()
    assert torch.equal(weight.detach(), torch.ones(2, 2, 1, 1))
    with pytest.raises(ValueError, match="Muon takes no closure"):
        optimizer.step(lambda: 0.0)
