"""Meta-LSTM against gradient descent if its gates are fixed, and its options; its formulas: tests/independent."""

from __future__ import annotations

import math

import pytest
import torch
from gradient_toys import (
    check_equals_maml,
    draw_tasks,
    smooth,
)

from kshot.errors import ConfigError
from kshot.learners import MAML, MetaLSTM
from kshot.learners.meta_lstm import preprocess

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])


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
