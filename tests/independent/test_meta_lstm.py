"""Meta-LSTM (Ravi and Larochelle 2017): an LSTM's cell state is the weights, its gates the learnt rate and decay."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from plain import Weights, build, check_scores, check_training, draw_tasks, loss, part, query_loss, scores_after
from torch import Tensor

from kshot.learners import MetaLSTM


def seen_as(value: Tensor) -> list[Tensor]:
    """Logarithm and sign of a number, or -1 and a multiple of it if it is below e^-10 (appendix of Andrychowicz)."""
    small = value.abs() < math.exp(-10)
    safe = torch.where(small, torch.ones_like(value), value)
    return [torch.where(small, -1.0, safe.abs().log() / 10), torch.where(small, math.e**10 * value, safe.sign())]


def adapted(weights: Weights, images: Tensor, labels: Tensor, steps: int) -> Weights:
    """theta_t = f_t theta_{t-1} - i_t grad L (eq. 2), one weight tensor after the other; gradients are constants."""
    theta = part(weights, "network.")
    zeros = {name: torch.zeros(weight.numel(), dtype=torch.float64) for name, weight in theta.items()}
    hidden, cell = ({name: zero[:, None].expand(-1, 4) for name, zero in zeros.items()} for _ in range(2))
    forget, admit = dict(zeros), dict(zeros)
    bias = weights["cell.bias_ih"] + weights["cell.bias_hh"]

    def gate(row: int, hidden: Tensor, theta: Tensor, before: Tensor) -> Tensor:
        inputs = torch.cat([hidden, theta[:, None], before[:, None]], 1)
        return torch.sigmoid(inputs @ weights["gate_weight"][row] + weights["gate_bias"][row])

    for _ in range(steps):
        value = loss(theta, images, labels)
        gradients = torch.autograd.grad(value, list(theta.values()), retain_graph=True)
        for name, gradient in zip(list(theta), gradients):
            flat, old = gradient.flatten(), theta[name].flatten()
            inputs = torch.stack([*seen_as(flat), *seen_as(value.detach().expand_as(flat))], 1)
            both = inputs @ weights["cell.weight_ih"].T + hidden[name] @ weights["cell.weight_hh"].T + bias
            to_input, to_forget, candidate, to_output = both.chunk(4, 1)
            cell[name] = to_forget.sigmoid() * cell[name] + to_input.sigmoid() * candidate.tanh()
            hidden[name] = to_output.sigmoid() * cell[name].tanh()
            forget[name] = gate(0, hidden[name], old, forget[name])
            admit[name] = gate(1, hidden[name], old, admit[name])
            theta[name] = (forget[name] * old - admit[name] * flat).view_as(gradient)
    return theta


def learner_of(at_once: int) -> MetaLSTM:
    options = {"hidden": 4, "inner_rate": 0.3, "inner_steps": 3, "test_inner_steps": 4, "tasks_at_once": at_once}
    return build(MetaLSTM, ways=3, **options)


@pytest.mark.parametrize("at_once", [1, 2])
def test_training_minimises_the_query_loss_over_first_weights_and_gates(at_once: int) -> None:
    learner, tasks = learner_of(at_once), draw_tasks()
    check_training(learner, tasks, query_loss(tasks, partial(adapted, steps=3)))


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_test_task_is_learnt_by_the_same_gates(at_once: int) -> None:
    learner, tasks = learner_of(at_once), draw_tasks()
    check_scores(learner, tasks, scores_after(learner, tasks, partial(adapted, steps=4)))
