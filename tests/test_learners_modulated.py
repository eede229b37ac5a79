"""HSML and MMAML against MAML and finite differences, and their options; their formulas: tests/independent."""

from __future__ import annotations

import pytest
import torch
from gradient_toys import check_equals_maml, check_finite_differences, draw_tasks, smooth

from kshot.errors import ConfigError
from kshot.learners import HSML, MAML, MMAML

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])


# HSML


@AT_ONCE
@pytest.mark.parametrize("first_order", [False, True])
def test_hsml_with_one_leaf_and_an_open_gate_is_maml(first_order: bool, at_once: int) -> None:
    options = {"inner_rate": 0.3, "inner_steps": 3, "first_order": first_order, "tasks_at_once": at_once}
    learner = smooth(HSML, hidden=4, clusters=(1,), **options)
    with torch.no_grad():
        learner.gate.weight.zero_()
        learner.gate.bias.fill_(50.0)  # whose sigmoid is 1 in float64
    check_equals_maml(learner, smooth(MAML, **options))


@AT_ONCE
def test_hsml_equals_finite_differences(at_once: int) -> None:
    options = {"hidden": 4, "sigma": 1.0, "reconstruction_weight": 0.5, "inner_rate": 0.3, "inner_steps": 2}
    learner, episodes = smooth(HSML, tasks_at_once=at_once, **options), draw_tasks()
    measured = learner.accumulate_gradients(episodes)
    torch.testing.assert_close(measured["loss"], learner.meta_loss(episodes).detach())
    assert all(parameter.grad.any() for parameter in learner.parameters())
    # the layer with ReLU has kinks, which the small step keeps clear of
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach(), step=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"clusters": ()}, "end in the root"),
        ({"clusters": (4, 2)}, "end in the root"),
        ({"clusters": (4, 0, 1)}, "end in the root"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight is -1.0"),
    ],
)
def test_hsml_refuses_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(HSML, **options)


# MMAML


@AT_ONCE
@pytest.mark.parametrize("first_order", [False, True])
def test_mmaml_with_film_at_identity_is_maml(first_order: bool, at_once: int) -> None:
    options = {"inner_rate": 0.3, "inner_steps": 3, "test_inner_steps": 5, "first_order": first_order}
    learner = smooth(MMAML, embedding_size=4, tasks_at_once=at_once, **options)
    with torch.no_grad():
        for parameter in learner.modulation.parameters():
            parameter.zero_()
    check_equals_maml(learner, smooth(MAML, tasks_at_once=at_once, **options))


@AT_ONCE
def test_mmaml_equals_finite_differences(at_once: int) -> None:
    learner = smooth(MMAML, embedding_size=4, inner_rate=0.3, inner_steps=2, tasks_at_once=at_once)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    assert all(parameter.grad.any() for parameter in learner.parameters())
    # the layer with ReLU has kinks, which the small step keeps clear of
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach(), step=1e-6, rtol=1e-5)


def test_film_is_not_saved_as_part_of_the_network() -> None:
    assert not any("scale_" in name or "shift_" in name for name in smooth(MMAML).state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"embedding_size": 0}, "embedding_size is 0"), ({"inner_clip": 0.0}, "inner_clip is 0.0")],
)
def test_mmaml_refuses_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smooth(MMAML, **options)
