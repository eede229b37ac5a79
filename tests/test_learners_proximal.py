"""Reptile, Meta-MinibatchProx and iMAML: what they look at, and options; their formulas: tests/independent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gradient_toys import (
    check_finite_differences,
    draw_tasks,
    loss,
    smooth,
)

from kshot.errors import ConfigError
from kshot.learners import IMAML, InitializationLearner, MinibatchProx, Reptile

AT_ONCE = pytest.mark.parametrize("at_once", [1, 2])
BOTH = pytest.mark.parametrize("cls", [Reptile, MinibatchProx])


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


def test_tasks_without_keys_have_mini_batches_too() -> None:
    learner, episodes = smooth(Reptile, test_inner_batch=4).eval(), draw_tasks(shots=3)
    keyless = replace(episodes, keys=episodes.keys[:0])
    torch.testing.assert_close(learner.scores(keyless), learner.scores(keyless), rtol=0, atol=0)
    assert not torch.allclose(learner.scores(keyless), learner.scores(episodes))


# iMAML


def test_imaml_equals_finite_differences() -> None:
    learner, episodes = (
        smooth(IMAML, l2=4.0, inner_rate=0.22, inner_steps=25, cg_steps=30, tasks_at_once=3),
        draw_tasks(),
    )
    learner.accumulate_gradients(episodes)
    check_finite_differences(learner, lambda: learner.meta_loss(episodes).detach())


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
