"""Inner problems solved by gradient steps, for a batch of tasks whose weights are stacked: (B, ...) for each name.

The loss of each task depends on its own weights alone, so the gradient of the SUM over tasks holds every task's own
gradient; nothing here knows whether there is one task or a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kshot.errors import DivergenceError

Weights = dict[str, Tensor]
TaskLosses = Callable[[Weights, int], Tensor]  # (weights, number of the step) -> (B,) losses
Rates = float | Mapping[str, Tensor]  # one for all, or (B, ...) for each name

_LOSS_BOUND = 1e8  # per task; a loss above it no longer means anything


def gradient_descent(
    losses: TaskLosses, weights: Weights, *, rates: Rates, steps: int, exact: bool, clip: float | None = None
) -> Weights:
    """The weights after `steps` times ``w - rate * gradient of the task's own loss`` (Finn et al. 2017, eq. 1).

    Parameters
    ----------
    losses
        The loss (B,) of each task as a function of the weights and of the number of the step.
    weights
        The starting point, (B, ...) for each name; only these are changed.
    rates
        Learning rate for the MEAN loss of a task; or one per weight, (B, ...) under the same names.
    steps
        The number of steps.
    exact
        Keep the graph, so that derivatives of the result include those of the gradients. False: each step counts as a
        constant that is added to the weights (first order).
    clip
        Every entry of the gradients is cut to [-clip, clip]; None for no clipping.

    Raises
    ------
    DivergenceError
        A loss is not finite or beyond 1e8; its `task` is the place in the batch.
    """
    seen = []
    for step in range(steps):
        values = losses(weights, step)
        seen.append(values.detach())
        gradients = torch.autograd.grad(values.sum(), list(weights.values()), create_graph=exact)
        if clip is not None:
            gradients = tuple(gradient.clamp(-clip, clip) for gradient in gradients)
        weights = {
            name: weight - (rates if isinstance(rates, (int, float)) else rates[name]) * gradient
            for (name, weight), gradient in zip(weights.items(), gradients)
        }
    check_losses(seen)
    return weights


def adam_descent(
    losses: TaskLosses, weights: Weights, *, rate: float, steps: int, decay: float = 0.999, eps: float = 1e-8
) -> Weights:
    """The weights after `steps` of Adam without momentum (beta1 = 0), each task with moments of its own, from zero.

    The result is detached: Reptile and Meta-MinibatchProx (Nichol et al. 2018; Zhou et al. 2019) never differentiate
    through the inner steps.

    Parameters
    ----------
    losses, weights, steps
        As for `gradient_descent`.
    rate
        Learning rate for the MEAN loss of a task.
    decay
        Adam's beta2.
    eps
        Added to the root of the second moments.

    Raises
    ------
    DivergenceError
        As `gradient_descent`.
    """
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    squares = [torch.zeros_like(weight) for weight in weights.values()]
    seen = []
    for step in range(steps):
        values = losses(weights, step)
        seen.append(values.detach())
        gradients = torch.autograd.grad(values.sum(), list(weights.values()))
        with torch.no_grad():
            for weight, gradient, square in zip(weights.values(), gradients, squares):
                square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
                unbiased = square / (1 - decay ** (step + 1))
                weight.addcdiv_(gradient, unbiased.sqrt_().add_(eps), value=-rate)
    check_losses(seen)
    return {name: weight.detach() for name, weight in weights.items()}


def check_losses(seen: list[Tensor]) -> None:
    """DivergenceError if a loss of an inner problem, (B,) for each step, is not finite or beyond 1e8."""
    if not seen:
        return
    losses = torch.stack(seen)
    bad = ~(losses.abs() < _LOSS_BOUND)
    if bad.any():
        step, task = bad.nonzero()[0].tolist()
        raise DivergenceError(
            f"the inner loop diverged: the loss was {losses[step, task]:.3g} after {step} steps"
            + ("; lower the inner rate" if step > 0 else ", and no inner rate can be blamed"),
            task=task,
        )
