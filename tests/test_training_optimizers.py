"""Optimisers and schedules by name are torch's own with the options that recipes name."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
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
    with pytest.raises(ConfigError, match="momentum and nesterov belong to sgd, sgdp, sgdw; leave them out for radam"):
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
