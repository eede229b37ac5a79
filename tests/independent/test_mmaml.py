"""MMAML (Vuorio et al. 2019): MAML on a network whose maps the task has scaled and shifted."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from plain import Weights, build, check_scores, check_training, draw_tasks, features, loss, part, scores, weights_of
from torch import Tensor

from kshot.learners import MMAML

RATE, CLIP = 0.3, 0.2
Film = list[tuple[Tensor, Tensor]]


def modulation(weights: Weights, images: Tensor, labels: Tensor) -> Film:
    """tau = g(v), v the mean code of the examples: scale and shift of each layer (Algorithm 1)."""
    encoded = torch.cat([features(weights, images, "examples.backbone.module."), F.one_hot(labels, 3).double()], 1)
    codes = (encoded @ weights["examples.layer.weight"].T + weights["examples.layer.bias"]).relu()
    film = []
    for layer in range(2):
        made = weights[f"modulation.{layer}.weight"] @ codes.mean(0) + weights[f"modulation.{layer}.bias"]
        scale, shift = made.chunk(2)
        film.append((1 + scale, shift))
    return film


def adapted(
    weights: Weights, images: Tensor, labels: Tensor, steps: int, first_order: bool = False
) -> tuple[Weights, Film]:
    """phi after steps along inner gradients that are cut to [-CLIP, CLIP]; tau stays as it is."""
    film, phi = modulation(weights, images, labels), part(weights, "network.")
    for _ in range(steps):
        value = loss(phi, images, labels, film)
        gradients = torch.autograd.grad(value, list(phi.values()), create_graph=True)
        if first_order:
            gradients = tuple(gradient.detach() for gradient in gradients)
        cut = [gradient.clamp(-CLIP, CLIP) for gradient in gradients]
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), cut)}
    return phi, film


def learner_of(at_once: int, **options: object) -> MMAML:
    given = {"embedding_size": 4, "inner_rate": RATE, "inner_clip": CLIP, "tasks_at_once": at_once}
    return build(MMAML, ways=3, inner_steps=2, test_inner_steps=4, **given, **options)


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("first_order", [False, True])
def test_training_minimises_the_query_loss_over_network_encoder_and_modulation(first_order: bool, at_once: int) -> None:
    learner, tasks = learner_of(at_once, first_order=first_order), draw_tasks()
    weights = weights_of(learner)
    film = modulation(weights, tasks.support[0], tasks.support_labels[0])
    first = loss(weights, tasks.support[0], tasks.support_labels[0], film)
    largest = max(g.abs().max() for g in torch.autograd.grad(first, list(part(weights, "network.").values())))
    assert largest > CLIP, "something is cut"

    def objective(weights: Weights, task: int) -> Tensor:
        phi, film = adapted(weights, tasks.support[task], tasks.support_labels[task], 2, first_order)
        return loss(phi, tasks.query[task], tasks.query_labels[task], film)

    check_training(learner, tasks, objective)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_modulated_and_adapted(at_once: int) -> None:
    learner, tasks = learner_of(at_once), draw_tasks()
    weights = weights_of(learner)

    def outputs(task: int, images: Tensor) -> Tensor:
        phi, film = adapted(weights, tasks.support[task], tasks.support_labels[task], 4)
        return scores(phi, images, film)

    check_scores(learner, tasks, outputs)
