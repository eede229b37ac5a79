"""Reptile, Meta-MinibatchProx and iMAML against their definitions, written out on plain tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from gradient_toys import (
    Weights,
    check_finite_differences,
    check_gradients,
    draw_tasks,
    loss,
    mean_over_tasks,
    scores,
    smooth,
    weights_of,
)
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.learners import IMAML, InitializationLearner, MinibatchProx, Reptile
from kshot.solvers.minibatches import draw_minibatches

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])
BOTH = pytest.mark.parametrize("cls", [Reptile, MinibatchProx])


def squared_distance(weights: Weights, centre: Weights) -> Tensor:
    return torch.stack([(weights[name] - centre[name]).square().sum() for name in weights]).sum()


def optimised(
    theta: Weights, images: Tensor, labels: Tensor, batches: Iterable[Tensor], optimizer: str, rate: float, l2: float
) -> tuple[Weights, list[float]]:
    """One task's weights after a step of torch's own optimiser on each mini-batch, and the losses before the steps."""
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in theta.items()}
    parameters = list(weights.values())
    step = (
        torch.optim.Adam(parameters, rate, (0.0, 0.999)) if optimizer == "adam" else torch.optim.SGD(parameters, rate)
    )
    losses = []
    for batch in batches:
        step.zero_grad()
        value = loss(weights, images[batch], labels[batch])
        losses.append(value.item())
        (value + l2 / 2 * squared_distance(weights, theta)).backward()
        step.step()
    return {name: weight.detach() for name, weight in weights.items()}, losses


def outcomes(
    learner: Reptile, episodes: Episodes, size: int, steps: int
) -> tuple[Weights, list[Weights], list[list[float]]]:
    """Theta, the weights of each task after so many steps, and the losses that each task met on the way."""
    theta, l2 = weights_of(learner), getattr(learner, "l2", 0.0)
    plan = draw_minibatches(episodes.keys, images=episodes.support.shape[1], size=size, steps=steps)
    how = (learner.inner_optimizer, learner.inner_rate, l2)
    tasks = zip(episodes.support, episodes.support_labels, plan)
    reached, losses = zip(*(optimised(theta, images, labels, batches, *how) for images, labels, batches in tasks))
    return theta, list(reached), list(losses)


@AT_ONCE
@BOTH
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("size", "steps"), [(4, 5), (100, 2), (6, 1)])
def test_gradient_leads_from_the_mean_of_the_adapted_weights(
    cls: type[Reptile], optimizer: str, size: int, steps: int, at_once: int
) -> None:
    options = {"l2": 0.7} if cls is MinibatchProx else {}
    options |= {"inner_optimizer": optimizer, "inner_batch": size, "inner_steps": steps, "tasks_at_once": at_once}
    learner, episodes = smooth(cls, inner_rate=0.05, **options), draw_tasks(shots=3, queries=0)
    theta, reached, losses = outcomes(learner, episodes, size, steps)
    measured = learner.accumulate_gradients(episodes)
    mean = {name: torch.stack([weights[name] for weights in reached]).mean(0) for name in theta}
    factor = 0.7 if cls is MinibatchProx else 1.0
    check_gradients(learner, {name: factor * (theta[name] - mean[name]).detach() for name in theta})
    torch.testing.assert_close(measured["loss"], torch.tensor(losses, dtype=torch.float64).mean())
    torch.testing.assert_close(measured["loss"], learner.meta_loss(episodes))

    torch.optim.SGD(learner.parameters(), 0.25).step()
    for name, parameter in learner.named_parameters():
        expected = theta[name] + 0.25 * factor * (mean[name] - theta[name])
        torch.testing.assert_close(parameter.detach(), expected.detach())


@AT_ONCE
def test_one_step_of_sgd_in_reptile_is_the_gradient_of_the_joint_loss(at_once: int) -> None:
    options = {"inner_optimizer": "sgd", "inner_steps": 1, "inner_batch": 100, "tasks_at_once": at_once}
    learner, episodes = smooth(Reptile, inner_rate=0.05, **options), draw_tasks(shots=3, queries=0)
    weights = weights_of(learner)
    joint = mean_over_tasks(lambda task: loss(weights, episodes.support[task], episodes.support_labels[task]), episodes)
    gradients = torch.autograd.grad(joint, list(weights.values()))
    learner.accumulate_gradients(episodes)
    check_gradients(learner, {name: 0.05 * gradient for name, gradient in zip(weights, gradients)})


def test_minibatch_prox_descends_the_least_value_of_its_inner_problem() -> None:
    """With the inner problem solved, l2 (theta - phi) is the gradient of min L(phi) + l2/2 |phi - theta|^2."""
    options = {"inner_optimizer": "sgd", "inner_steps": 40, "inner_batch": 100, "inner_rate": 0.3}
    learner, episodes = smooth(MinibatchProx, l2=2.0, **options), draw_tasks(count=2, queries=0)

    def least_value() -> Tensor:
        theta, reached, _ = outcomes(learner, episodes, 100, 40)

        def value(task: int) -> Tensor:
            phi = reached[task]
            fit = loss(phi, episodes.support[task], episodes.support_labels[task])
            return fit + learner.l2 / 2 * squared_distance(phi, theta)

        return mean_over_tasks(value, episodes).detach()

    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, least_value)


@BOTH
def test_training_knows_no_query_images(cls: type[Reptile]) -> None:
    episodes = draw_tasks(shots=3)
    gradients, losses = [], []
    for given in (episodes, replace(episodes, query=episodes.query[:, :0], query_labels=episodes.query_labels[:, :0])):
        learner = smooth(cls)
        losses.append(learner.accumulate_gradients(given))
        gradients.append([parameter.grad for parameter in learner.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)


@AT_ONCE
@BOTH
def test_evaluation_has_steps_and_mini_batches_of_its_own(cls: type[Reptile], at_once: int) -> None:
    options = {"test_inner_steps": 6, "test_inner_batch": 5, "tasks_at_once": at_once}
    learner = smooth(cls, inner_rate=0.05, inner_steps=1, inner_batch=2, **options).eval()
    episodes = draw_tasks(shots=3)
    _, reached, _ = outcomes(learner, episodes, size=5, steps=6)
    for task, actual in enumerate(learner.scores(episodes)):
        torch.testing.assert_close(actual, scores(reached[task], episodes.query[task]))


def test_tasks_without_keys_have_mini_batches_too() -> None:
    learner, episodes = smooth(Reptile, test_inner_batch=4).eval(), draw_tasks(shots=3)
    keyless = replace(episodes, keys=episodes.keys[:0])
    torch.testing.assert_close(learner.scores(keyless), learner.scores(keyless), rtol=0, atol=0)
    assert not torch.allclose(learner.scores(keyless), learner.scores(episodes))


# iMAML


def unrolled(theta: Weights, images: Tensor, labels: Tensor, l2: float, rate: float, steps: int) -> Weights:
    """Gradient descent on the proximal problem of a task, to be differentiated through."""
    weights = theta
    for _ in range(steps):
        value = loss(weights, images, labels) + l2 / 2 * squared_distance(weights, theta)
        gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True)
        weights = {name: weight - rate * step for (name, weight), step in zip(weights.items(), gradients)}
    return weights


@AT_ONCE
@pytest.mark.parametrize("l2", [2.0, 4.0])
def test_imaml_equals_the_inner_problem_unrolled_to_convergence(l2: float, at_once: int) -> None:
    rate, steps = 1 / (l2 + 0.5), 50
    options = {"inner_steps": steps, "cg_steps": 40, "tasks_at_once": at_once}
    learner, episodes = smooth(IMAML, l2=l2, inner_rate=rate, **options), draw_tasks()
    theta = weights_of(learner)

    def objective(task: int) -> Tensor:
        phi = unrolled(theta, episodes.support[task], episodes.support_labels[task], l2, rate, steps)
        return loss(phi, episodes.query[task], episodes.query_labels[task])

    expected = mean_over_tasks(objective, episodes)
    gradients = torch.autograd.grad(expected, list(theta.values()))
    measured = learner.accumulate_gradients(episodes)
    torch.testing.assert_close(measured["loss"], expected.detach())
    check_gradients(learner, dict(zip(theta, gradients)), rtol=1e-8)


def test_imaml_equals_finite_differences() -> None:
    learner, episodes = (
        smooth(IMAML, l2=4.0, inner_rate=0.22, inner_steps=25, cg_steps=30, tasks_at_once=3),
        draw_tasks(),
    )
    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach())


@AT_ONCE
@pytest.mark.parametrize("damping", [0.0, 0.8])
def test_imaml_solves_its_system_wherever_the_inner_steps_end(damping: float, at_once: int) -> None:
    options = {"l2": 1.5, "inner_rate": 0.3, "inner_steps": 2, "cg_steps": 60}
    learner, episodes = smooth(IMAML, damping=damping, tasks_at_once=at_once, **options), draw_tasks()
    theta = weights_of(learner)
    names, shapes = list(theta), [weight.shape for weight in theta.values()]
    sizes = [weight.numel() for weight in theta.values()]

    def as_weights(flat: Tensor) -> Weights:
        return {name: part.view(shape) for name, part, shape in zip(names, flat.split(sizes), shapes)}

    total = torch.zeros(sum(sizes), dtype=torch.float64)
    for task in range(episodes.tasks):
        support = (episodes.support[task], episodes.support_labels[task])
        phi = unrolled(theta, *support, l2=1.5, rate=0.3, steps=2)
        flat = torch.cat([weight.detach().flatten() for weight in phi.values()]).requires_grad_()
        query = loss(as_weights(flat), episodes.query[task], episodes.query_labels[task])
        (direct,) = torch.autograd.grad(query, flat)
        hessian = torch.autograd.functional.hessian(lambda flat, s=support: loss(as_weights(flat), *s), flat)
        matrix = torch.eye(len(flat), dtype=torch.float64) * (1 + damping) + hessian / 1.5
        total += torch.linalg.solve(matrix, direct) / episodes.tasks
    learner.accumulate_gradients(episodes)
    check_gradients(learner, as_weights(total), rtol=1e-8)


def test_one_step_of_conjugate_gradients_scales_the_first_order_gradient() -> None:
    learner, episodes = smooth(IMAML, l2=1.0, cg_steps=1), draw_tasks(count=1)
    weights = {name: weight[0].requires_grad_() for name, weight in learner.adapted(episodes, 16).items()}
    weights = {f"network.{name}": weight for name, weight in weights.items()}
    query = loss(weights, episodes.query[0], episodes.query_labels[0])
    direct = torch.cat([part.flatten() for part in torch.autograd.grad(query, list(weights.values()))])
    learner.accumulate_gradients(episodes)
    actual = torch.cat([parameter.grad.flatten() for parameter in learner.parameters()])
    torch.testing.assert_close(actual / actual.norm(), direct / direct.norm())
    assert not torch.allclose(actual, direct)


@AT_ONCE
def test_imaml_is_evaluated_on_the_proximal_problem(at_once: int) -> None:
    learner = smooth(IMAML, l2=1.5, inner_rate=0.3, test_inner_steps=4, inner_steps=1, tasks_at_once=at_once).eval()
    episodes, theta = draw_tasks(), weights_of(learner)
    for task, actual in enumerate(learner.scores(episodes)):
        phi = unrolled(theta, episodes.support[task], episodes.support_labels[task], l2=1.5, rate=0.3, steps=4)
        torch.testing.assert_close(actual, scores(phi, episodes.query[task]).detach())


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Reptile, {"inner_steps": 0}, "inner_steps is 0, but must be positive"),
        (Reptile, {"inner_batch": 0}, "inner_batch is 0, but must be positive"),
        (Reptile, {"test_inner_batch": 0}, "test_inner_batch is 0, but must be positive"),
        (Reptile, {"inner_rate": 0.0}, "inner_rate is 0.0, but must be positive"),
        (Reptile, {"inner_optimizer": "radam"}, "inner_optimizer is 'radam'; choose one of: adam, sgd"),
        (MinibatchProx, {"l2": 0.0}, "l2 is 0.0, but must be above 0; without it, this is the learner reptile"),
        (IMAML, {"l2": -1.0}, "l2 is -1.0, but must be positive"),
        (IMAML, {"inner_rate": 1.0, "l2": 2.0}, "lower inner_rate below 1"),
        (IMAML, {"cg_steps": 0}, "cg_steps is 0, but must be positive"),
        (IMAML, {"damping": -1.0}, "damping is -1.0, but must be at least 0"),
    ],
)
def test_options_without_sense_are_refused(
    cls: type[InitializationLearner], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(cls, **options)
