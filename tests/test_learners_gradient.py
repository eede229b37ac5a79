"""Meta-gradients of MAML and ANIL against loops written out on plain tensors, and against finite differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from gradient_toys import (
    Weights,
    check_equals_loss,
    check_finite_differences,
    draw_tasks,
    features,
    loss,
    mean_over_tasks,
    scores,
    smooth,
    weights_of,
)
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import DivergenceError
from kshot.learners import ANIL, IMAML, MAML, InitializationLearner, MinibatchProx, Reptile

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])


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
@pytest.mark.parametrize("learn_rates", [False, True])
@pytest.mark.parametrize("layers", ["all", "body", "head"])
@pytest.mark.parametrize("first_order", [False, True])
def test_maml_equals_a_loop_written_out(first_order: bool, layers: str, learn_rates: bool, at_once: int) -> None:
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


def anil_loss(weights: Weights, episodes: Episodes, rate: float, steps: int) -> Tensor:
    """The objective of ANIL: heads on fixed features, one task after the other."""

    def objective(task: int) -> Tensor:
        support, query = (features(weights, images[task]) for images in (episodes.support, episodes.query))
        weight, bias = weights["network.head.weight"], weights["network.head.bias"]
        for _ in range(steps):
            value = F.cross_entropy(support @ weight.T + bias, episodes.support_labels[task])
            to_weight, to_bias = torch.autograd.grad(value, [weight, bias], create_graph=True)
            weight, bias = weight - rate * to_weight, bias - rate * to_bias
        return F.cross_entropy(query @ weight.T + bias, episodes.query_labels[task])

    return mean_over_tasks(objective, episodes)


@AT_ONCE
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_anil_differentiates_the_body_through_all_steps_of_the_head(steps: int, at_once: int) -> None:
    learner = smooth(ANIL, inner_rate=0.5, inner_steps=steps, tasks_at_once=at_once)
    check_equals_loss(learner, lambda _, weights, episodes: anil_loss(weights, episodes, 0.5, steps))


def test_anil_equals_finite_differences() -> None:
    learner = smooth(ANIL, inner_rate=0.5, inner_steps=3)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach())


@AT_ONCE
@pytest.mark.parametrize("cls", [MAML, ANIL])
def test_scores_are_those_of_the_weights_after_the_steps_of_the_test(
    cls: type[InitializationLearner], at_once: int
) -> None:
    learner = smooth(cls, inner_rate=0.3, inner_steps=1, test_inner_steps=4, tasks_at_once=at_once).eval()
    episodes = draw_tasks()
    names = [f"network.{name}" for name, _ in learner.network.named_parameters() if cls is MAML or "head" in name]
    rates = dict.fromkeys(names, torch.tensor(0.3, dtype=torch.float64))
    for task, actual in enumerate(learner.scores(episodes)):
        support, labels = episodes.support[task], episodes.support_labels[task]
        adapted = descended(weights_of(learner), support, labels, names, rates, 4, exact=False)
        torch.testing.assert_close(actual, scores(adapted, episodes.query[task]).detach())


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
