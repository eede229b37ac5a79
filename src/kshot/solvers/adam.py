"""Adam on a stack of weights, for inner problems that are not differentiated through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def adam(start: Tensor, gradient: Callable[[Tensor], Tensor], *, rate: float, steps: int) -> Tensor:
    """The weights after `steps` of Adam (Kingma and Ba 2015, with their moments) from `start`, any shape.

    Adam looks at each value alone, so that the tasks of a stack (B, ...) do not mix.

    Parameters
    ----------
    start
        The weights to start from.
    gradient
        The gradient at weights, of the same shape.
    rate
        Learning rate.
    steps
        The number of steps.
    """
    weights = start.detach().clone()
    optimizer = torch.optim.Adam([weights], lr=rate, fused=True)
    for _ in range(steps):
        weights.grad = gradient(weights)
        optimizer.step()
    weights.grad = None
    return weights
