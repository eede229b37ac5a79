"""Meta-LSTM against its equations written out, and against gradient descent where its gates are fixed."""

from __future__ import annotations

import math

import pytest
import torch
from gradient_toys import (
    Weights,
    check_equals_loss,
    check_equals_maml,
    draw_tasks,
    loss,
    mean_over_tasks,
    smooth,
)
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.learners import MAML, MetaLSTM
from kshot.learners.meta_lstm import preprocess

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])


def moved_gates(at_once: int, steps: int = 3) -> MetaLSTM:
    """A Meta-LSTM whose gates depend clearly on all that they see."""
    learner = smooth(MetaLSTM, hidden=4, inner_rate=0.3, inner_steps=steps, tasks_at_once=at_once)
    with torch.no_grad():
        for parameter in (*learner.cell.parameters(), learner.gate_weight, learner.gate_bias):
            parameter += 0.5 * torch.randn_like(parameter)
    return learner


def meta_lstm_loss(learner: MetaLSTM, weights: Weights, episodes: Episodes) -> Tensor:
    """The objective of Meta-LSTM, one task and one weight tensor after the other."""
    network = [name for name in weights if name.startswith("network.")]

    def seen_as(value: Tensor) -> list[Tensor]:
        small = value.abs() < math.exp(-10)
        safe = torch.where(small, torch.ones_like(value), value)
        return [torch.where(small, -1.0, safe.abs().log() / 10), torch.where(small, math.e**10 * value, safe.sign())]

    def gate(row: int, hidden: Tensor, theta: Tensor, before: Tensor) -> Tensor:
        inputs = torch.cat([hidden, theta[:, None], before[:, None]], 1)
        return torch.sigmoid(inputs @ weights["gate_weight"][row] + weights["gate_bias"][row])

    def objective(task: int) -> Tensor:
        theta = {name: weights[name] for name in network}
        hidden, cell, forget, admit = ({name: torch.tensor(0.0).double() for name in network} for _ in range(4))
        for _ in range(learner.inner_steps):
            value = loss(theta, episodes.support[task], episodes.support_labels[task])
            gradients = torch.autograd.grad(value, [theta[name] for name in network], retain_graph=True)
            for name, gradient in zip(network, gradients):
                flat, old = gradient.flatten(), theta[name].flatten()
                inputs = torch.stack([*seen_as(flat), *seen_as(value.detach().expand_as(flat))], 1)
                hidden[name] = hidden[name].expand(len(flat), 4)
                both = inputs @ weights["cell.weight_ih"].T + hidden[name] @ weights["cell.weight_hh"].T
                to_input, to_forget, candidate, to_output = (
                    both + weights["cell.bias_ih"] + weights["cell.bias_hh"]
                ).chunk(4, 1)
                cell[name] = to_forget.sigmoid() * cell[name] + to_input.sigmoid() * candidate.tanh()
                hidden[name] = to_output.sigmoid() * cell[name].tanh()
                forget[name] = gate(0, hidden[name], old, forget[name].expand_as(flat))
                admit[name] = gate(1, hidden[name], old, admit[name].expand_as(flat))
                theta[name] = (forget[name] * old - admit[name] * flat).view_as(gradient)
        return loss(theta, episodes.query[task], episodes.query_labels[task])

    return mean_over_tasks(objective, episodes)


@AT_ONCE
def test_meta_lstm_equals_a_loop_written_out(at_once: int) -> None:
    check_equals_loss(moved_gates(at_once), meta_lstm_loss)


@AT_ONCE
def test_meta_lstm_with_fixed_gates_is_gradient_descent(at_once: int) -> None:
    options = {"inner_steps": 3, "test_inner_steps": 5, "tasks_at_once": at_once}
    learner = smooth(MetaLSTM, inner_rate=0.3, **options)
    with torch.no_grad():
        learner.gate_weight.zero_()
        learner.gate_bias[0] = 50.0  # whose sigmoid is 1 in float64
        learner.gate_bias[1] = math.log(0.3 / 0.7)
    check_equals_maml(learner, smooth(MAML, inner_rate=0.3, first_order=True, **options))


def test_meta_lstm_starts_beside_gradient_descent() -> None:
    learner, episodes = smooth(MetaLSTM, inner_rate=0.2, test_inner_steps=1).eval(), draw_tasks(1)
    maml = smooth(MAML, inner_rate=0.2, test_inner_steps=1).eval()
    maml.network.load_state_dict(learner.network.state_dict())
    start = learner.initial(1)
    actual, expected = (each.adapted(episodes, 1) for each in (learner, maml))
    for name, weight in expected.items():
        torch.testing.assert_close(actual[name], weight, rtol=0.02, atol=0.02)
    assert any((weight - start[name]).abs().max() > 0.05 for name, weight in actual.items())


def test_numbers_are_preprocessed_as_size_and_sign() -> None:
    values = torch.tensor([1.0, -(math.e**5), math.e**-10.0001, -(math.e**-12), 0.0], dtype=torch.float64)
    expected = [[0, 1], [0.5, -1], [-1, math.e**-0.0001], [-1, -(math.e**-2)], [-1, 0]]
    torch.testing.assert_close(preprocess(values), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": 0}, "hidden is 0"), ({"inner_rate": 1.0}, "a gate lies"), ({"inner_rate": 0.0}, "a gate lies")],
)
def test_meta_lstm_refuses_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(MetaLSTM, **options)
