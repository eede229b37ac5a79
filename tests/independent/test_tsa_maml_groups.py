"""TSA-MAML (Zhou et al. 2021, Algorithm 1): a task is served by the initialisation nearest to its estimated optimum."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plain import Weights, build, check_scores, close, draw_tasks, loss, part, scores, squared_distance, weights_of
from torch import Tensor

from kshot.learners import TSAMAML

RATE, GROUPS = 0.2, 3


def descended(phi: Weights, images: Tensor, labels: Tensor, steps: int, exact: bool) -> Weights:
    """Some gradient steps on the support set."""
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=exact)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi


def initialization(weights: Weights, group: int) -> Weights:
    """theta_k, by the names of theta*."""
    beginning = f"initializations.{group}."
    return {f"network.{name.removeprefix(beginning)}": value for name, value in part(weights, beginning).items()}


def group_of(weights: Weights, images: Tensor, labels: Tensor) -> int:
    """k = argmin |theta_i* - theta_k|, theta_i* being four steps from theta*."""
    names = initialization(weights, 0)
    theta_star = {name: weights[name].detach().requires_grad_() for name in names}
    optimum = descended(theta_star, images, labels, 4, exact=False)
    distances = [squared_distance(optimum, initialization(weights, group)) for group in range(GROUPS)]
    return int(torch.stack(distances).argmin())


def learner_of(**options: object) -> TSAMAML:
    given = {"groups": GROUPS, "assignment_steps": 4, "inner_rate": RATE, "inner_steps": 2, "test_inner_steps": 3}
    learner = build(TSAMAML, ways=3, **given | options)
    # near theta* and apart from each other as the optima of tasks are, so that several groups are used
    learner.start_groups(learner.task_vectors(draw_tasks(GROUPS, seed=1)))
    return learner


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize("first_order", [False, True])
def test_each_group_moves_along_the_gradients_of_its_tasks(first_order: bool, at_once: int) -> None:
    learner, tasks = learner_of(first_order=first_order, tasks_at_once=at_once), draw_tasks(8)
    weights = weights_of(learner)
    losses, chosen, gradients = [], [], {name: torch.zeros_like(value) for name, value in weights.items()}
    for task in range(tasks.tasks):
        images, labels = tasks.support[task], tasks.support_labels[task]
        chosen.append(group_of(weights, images, labels))
        theta = initialization(weights, chosen[-1])
        phi = descended(theta, images, labels, 2, exact=not first_order)
        losses.append(loss(phi, tasks.query[task], tasks.query_labels[task]))
        for name, gradient in zip(theta, torch.autograd.grad(losses[-1], list(theta.values()))):
            name = name.replace("network", f"initializations.{chosen[-1]}")
            gradients[name] += gradient / tasks.tasks
    measured = learner.accumulate_gradients(tasks)
    close(measured["loss"], torch.stack(losses).mean(), "loss")
    assert len(set(chosen)) > 1
    assert learner.usage.tolist() == [chosen.count(group) for group in range(GROUPS)]
    for name, parameter in learner.named_parameters():
        beginning, _, rest = name.partition(".")
        if beginning == "initializations" and int(rest[0]) in chosen:
            close(parameter.grad, gradients[name], name)
        else:
            assert parameter.grad is None, f"{name}: theta* and groups without a task have no gradient"


def test_a_test_task_is_learnt_from_the_initialisation_of_its_group() -> None:
    learner, tasks = learner_of(), draw_tasks(8)
    weights = weights_of(learner)

    def outputs(task: int, images: Tensor) -> Tensor:
        support, labels = tasks.support[task], tasks.support_labels[task]
        theta = initialization(weights, group_of(weights, support, labels))
        return scores(descended(theta, support, labels, 3, exact=False), images)

    check_scores(learner, tasks, outputs)


@pytest.mark.parametrize("at_once", [1, 6])
@pytest.mark.parametrize(("steps", "shifts"), [(1, 3), (1, 2), (4, 3), (4, 2), (4, 1)])
def test_a_symmetrised_solution_is_the_mean_over_shifts_of_the_labels(steps: int, shifts: int, at_once: int) -> None:
    options = {"symmetrize": "shifts", "shifts": shifts, "tasks_at_once": at_once}
    learner, tasks = learner_of(assignment_steps=steps, **options), draw_tasks(4)
    names = initialization(weights_of(learner), 0)
    theta_star = {name: weights_of(learner)[name].detach().requires_grad_() for name in names}
    actual = torch.cat(learner.by_chunk(learner.task_vectors, tasks))
    for task in range(tasks.tasks):
        vectors = []
        for shift in range(shifts):
            labels = (tasks.support_labels[task] + shift) % 3
            solution = descended(theta_star, tasks.support[task], labels, steps, exact=False)
            vectors.append(torch.cat([(solution[name] - theta_star[name]).flatten() for name in names]))
        close(actual[task], torch.stack(vectors).mean(0), f"task {task}")


def test_a_head_of_equal_rows_gives_a_body_that_no_renumbering_changes() -> None:
    learner, tasks = learner_of(symmetrize="shared-head"), draw_tasks(4)
    weights = weights_of(learner)
    names = [name for name in initialization(weights, 0) if "head" not in name]
    equal = {name: weights[name].detach().requires_grad_() for name in initialization(weights, 0)}
    rows = equal["network.head.weight"].detach()
    equal["network.head.weight"] = rows.mean(0, keepdim=True).repeat(3, 1).requires_grad_()
    equal["network.head.bias"] = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    actual = learner.task_vectors(tasks)
    for task in range(tasks.tasks):
        solution = descended(equal, tasks.support[task], tasks.support_labels[task], 4, exact=False)
        close(actual[task], torch.cat([(solution[name] - equal[name]).flatten() for name in names]), f"task {task}")
    renumbered = replace(tasks, support_labels=torch.tensor([2, 0, 1])[tasks.support_labels])
    close(learner.task_vectors(renumbered), actual, "vectors under other numbers of the classes")


@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("first_order", [False, True])
def test_offsets_move_with_their_tasks_and_the_common_part_with_all(first_order: bool, decay: float) -> None:
    options = {"sharing": "offset", "offset_scale": 0.4, "offset_decay": decay, "first_order": first_order}
    learner, tasks = learner_of(**options), draw_tasks(8)
    weights = weights_of(learner)
    common = part(weights, "initializations.common.")

    def theta_of(group: int) -> tuple[Weights, Tensor]:
        """theta_0 + delta_k under the names of theta*, and |delta_k|^2."""
        delta = {name: 0.4 * weights[name.replace("common", f"offsets.{group}")] for name in common}
        theta = {name.replace("initializations.common", "network"): common[name] + delta[name] for name in common}
        return theta, torch.stack([value.square().sum() for value in delta.values()]).sum()

    thetas = [theta_of(group) for group in range(GROUPS)]
    losses, chosen = [], []
    for task in range(tasks.tasks):
        images, labels = tasks.support[task], tasks.support_labels[task]
        theta_star = {name: weights[name].detach().requires_grad_() for name in thetas[0][0]}
        optimum = descended(theta_star, images, labels, 4, exact=False)
        distances = [squared_distance(optimum, theta) for theta, _ in thetas]
        chosen.append(int(torch.stack(distances).argmin()))
        theta, size = thetas[chosen[-1]]
        phi = descended(theta, images, labels, 2, exact=not first_order)
        losses.append(loss(phi, tasks.query[task], tasks.query_labels[task]) + decay / 2 * size)
    learnt = {name: value for name, value in weights.items() if value.requires_grad}
    mean = torch.stack(losses).mean()
    gradients = dict(zip(learnt, torch.autograd.grad(mean, list(learnt.values()), allow_unused=True)))
    close(learner.meta_loss(tasks).detach(), mean, "objective")
    close(learner.accumulate_gradients(tasks)["loss"], mean, "loss")
    assert len(set(chosen)) > 1
    for name, parameter in learner.named_parameters():
        if gradients.get(name) is None:
            assert parameter.grad is None, f"{name}: theta* and offsets without a task have no gradient"
        else:
            close(parameter.grad, gradients[name], name)
