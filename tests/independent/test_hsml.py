"""HSML (Yao et al. 2019): MAML from an initialisation that is gated by the task's place in a soft tree of clusters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from plain import Weights, build, check_scores, check_training, draw_tasks, features, loss, part, scores, weights_of
from torch import Tensor

from kshot.learners import HSML

RATE, SIGMA, HIDDEN = 0.3, 0.8, 4


def gru(weights: Weights, name: str, inputs: Tensor, state: Tensor) -> Tensor:
    """One step of a gated recurrent unit: reset and update gate, then the candidate."""
    of_input, of_state = (
        weights[f"{name}.weight_{kind}_l0"] @ values + weights[f"{name}.bias_{kind}_l0"]
        for kind, values in (("ih", inputs), ("hh", state))
    )
    reset, update = (of_input + of_state)[: 2 * HIDDEN].sigmoid().chunk(2)
    candidate = (of_input[2 * HIDDEN :] + reset * of_state[2 * HIDDEN :]).tanh()
    return (1 - update) * candidate + update * state


def embedded(weights: Weights, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean state g of a recurrent encoder over the examples, and the error of decoding them (section 4.1)."""
    encoded = torch.cat([features(weights, images, "examples.backbone.module."), F.one_hot(labels, 3).double()], 1)
    codes = (encoded @ weights["examples.layer.weight"].T + weights["examples.layer.bias"]).relu()
    state, states, squares = torch.zeros(HIDDEN).double(), [], []
    for code in codes:
        state = gru(weights, "auto_encoder.encoder", code, state)
        states.append(state)
    for code in reversed(list(codes)):
        state = gru(weights, "auto_encoder.decoder", torch.ones(1).double(), state)
        decoded = weights["auto_encoder.output.weight"] @ state + weights["auto_encoder.output.bias"]
        squares.append((decoded - code) ** 2)
    return torch.stack(states).mean(0), torch.stack(squares).mean()


def root(weights: Weights, embedding: Tensor) -> Tensor:
    """From level to level, sum over the states below of share * tanh(W h + b) (section 4.2)."""
    states = [embedding]
    for level, (clusters, sigma) in enumerate(((4, SIGMA), (2, 1.0), (1, 1.0))):
        above = [torch.zeros(HIDDEN).double() for _ in range(clusters)]
        for state in states:
            kernel = torch.ones(1).double()
            if clusters > 1:
                centres = weights[f"tree.{level}.centres"]
                kernel = torch.stack([(-((state - c) ** 2).sum() / sigma**2 / 2).exp() for c in centres])
            for place in range(clusters):
                weight, bias = weights[f"tree.{level}.weight"][place], weights[f"tree.{level}.bias"][place]
                above[place] = above[place] + kernel[place] / kernel.sum() * torch.tanh(weight @ state + bias)
        states = above
    return states[0]


def adapted(
    weights: Weights, images: Tensor, labels: Tensor, steps: int, first_order: bool = False
) -> tuple[Weights, Tensor]:
    """MAML's steps from theta_0 * sigmoid(W [g, h] + b) (section 4.3), and the error of the auto-encoder."""
    embedding, error = embedded(weights, images, labels)
    inputs = torch.cat([embedding, root(weights, embedding)])
    gates = (weights["gate.weight"] @ inputs + weights["gate.bias"]).sigmoid()
    phi, place = {}, 0
    for name, weight in part(weights, "network.").items():
        phi[name] = weight * gates[place : place + weight.numel()].view_as(weight)
        place += weight.numel()
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(phi, images, labels), list(phi.values()), create_graph=True)
        if first_order:
            gradients = tuple(gradient.detach() for gradient in gradients)
        phi = {name: weight - RATE * gradient for (name, weight), gradient in zip(phi.items(), gradients)}
    return phi, error


def learner_of(at_once: int, **options: object) -> HSML:
    given = {"hidden": HIDDEN, "sigma": SIGMA, "inner_rate": RATE, "reconstruction_weight": 0.5}
    return build(HSML, ways=3, inner_steps=2, test_inner_steps=3, tasks_at_once=at_once, **given, **options)


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("first_order", [False, True])
def test_training_minimises_query_loss_and_reconstruction_error(first_order: bool, at_once: int) -> None:
    learner, tasks = learner_of(at_once, first_order=first_order), draw_tasks()

    def objective(weights: Weights, task: int) -> Tensor:
        phi, error = adapted(weights, tasks.support[task], tasks.support_labels[task], 2, first_order)
        return loss(phi, tasks.query[task], tasks.query_labels[task]) + 0.5 * error

    check_training(learner, tasks, objective)


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_starts_from_gated_weights_too(at_once: int) -> None:
    learner, tasks = learner_of(at_once), draw_tasks()
    weights = weights_of(learner)

    def outputs(task: int, images: Tensor) -> Tensor:
        return scores(adapted(weights, tasks.support[task], tasks.support_labels[task], 3)[0], images)

    check_scores(learner, tasks, outputs)
