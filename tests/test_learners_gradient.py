"""Meta-gradients of MAML with several options at once, and against finite differences; what a divergence says.

tests/independent/ holds each algorithm against its formulas.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from gradient_toys import (
    Weights,
    check_equals_loss,
    check_finite_differences,
    draw_tasks,
    loss,
    mean_over_tasks,
    smooth,
)
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import DivergenceError
from kshot.learners import ANIL, IMAML, MAML, InitializationLearner, MinibatchProx, Reptile

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])
# the head alone, and more than one option at once; tests/independent holds each of them by itself
COMBINED = [
    choice
    for choice in itertools.product((False, True), ("all", "body", "head"), (False, True))
    if choice[1] == "head" or choice[0] + (choice[1] == "body") + choice[2] > 1
]


def descended(
    weights: Weights, images: Tensor, labels: Tensor, adapting: list[str], rates: Weights, steps: int, exact: bool
) -> Weights:
    """One task's weights after gradient steps on some of them."""
    for _ in range(steps):
        gradients = torch.autograd.grad(
            loss(weights, images, labels), [weights[name] for name in adapting], create_graph=exact
        )
        moved = {name: weights[name] - rates[name] * gradient for name, gradient in zip(adapting, gradients)}
        weights = weights | moved
    return weights


def maml_loss(learner: MAML, weights: Weights, episodes: Episodes) -> Tensor:
    """The objective of MAML, one task after the other."""
    rates: Weights = {name: torch.tensor(learner.inner_rate, dtype=torch.float64) for name in learner.adapting}
    rates |= {name: weights[f"rates.{place}"] for place, name in enumerate(learner.adapting) if len(learner.rates)}
    rates = {f"network.{name}": rate for name, rate in rates.items()}

    def objective(task: int) -> Tensor:
        support, labels = episodes.support[task], episodes.support_labels[task]
        adapted = descended(weights, support, labels, list(rates), rates, learner.inner_steps, not learner.first_order)
        return loss(adapted, episodes.query[task], episodes.query_labels[task])

    return mean_over_tasks(objective, episodes)


@AT_ONCE
@pytest.mark.parametrize(("first_order", "layers", "learn_rates"), COMBINED)
def test_options_of_maml_combine_as_in_a_loop_written_out(
    first_order: bool, layers: str, learn_rates: bool, at_once: int
) -> None:
    options = {"first_order": first_order, "layers": layers, "learn_rates": learn_rates, "inner_steps": 3}
    check_equals_loss(smooth(MAML, inner_rate=0.3, tasks_at_once=at_once, **options), maml_loss)


@pytest.mark.parametrize("layers", ["all", "body", "head"])
def test_first_order_differs_from_second_order(layers: str) -> None:
    gradients = []
    for first_order in (False, True):
        learner = smooth(MAML, inner_rate=0.3, first_order=first_order, layers=layers)
        learner.accumulate_gradients(draw_tasks())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in learner.parameters()]))
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[0].norm()


@AT_ONCE
@pytest.mark.parametrize("learn_rates", [False, True])
@pytest.mark.parametrize("layers", ["all", "body", "head"])
def test_maml_equals_finite_differences(layers: str, learn_rates: bool, at_once: int) -> None:
    options = {"layers": layers, "learn_rates": learn_rates, "tasks_at_once": at_once}
    learner = smooth(MAML, inner_rate=0.3, inner_steps=2, **options)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach())


def test_anil_equals_finite_differences() -> None:
    learner = smooth(ANIL, inner_rate=0.5, inner_steps=3)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach())


LEARNERS = pytest.mark.parametrize("cls", [MAML, ANIL, Reptile, MinibatchProx, IMAML])


@AT_ONCE
@LEARNERS
def test_a_task_that_diverges_is_named(cls: type[InitializationLearner], at_once: int) -> None:
    learner, episodes = smooth(cls, tasks_at_once=at_once), draw_tasks()
    support = episodes.support.clone()
    support[1] = float("nan")
    broken = replace(episodes, support=support)
    for attempt in (learner.accumulate_gradients, learner.eval().scores):
        with pytest.raises(DivergenceError, match=r"^task 1: the inner loop diverged: the loss was nan") as caught:
            attempt(broken)
        assert caught.value.task == 1


@LEARNERS
def test_too_high_an_inner_rate_says_what_to_lower(cls: type[InitializationLearner]) -> None:
    options = {"l2": 1e-12} if cls is IMAML else {}
    options |= {"inner_optimizer": "sgd"} if issubclass(cls, Reptile) else {}
    learner = smooth(cls, inner_rate=1e10, inner_steps=5, **options)
    with pytest.raises(DivergenceError, match="lower the inner rate"):
        learner.accumulate_gradients(draw_tasks())
