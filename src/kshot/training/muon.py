"""Muon: momentum whose direction is made orthogonal, for convolutions; and SGD for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_TURN = 0.5  # of the rate
_STEPS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Muon (Jordan et al. 2024) for convolutions, as matrices W (outputs, inputs * places); SGD for everything else.

    ::

        m = momentum * m + g;   d = g + momentum * m  with Nesterov momentum, or else  d = m
        convolutions:  O = five Newton-Schulz steps from d, near the orthogonal matrix nearest to it
                       W = sqrt(outputs) * W / |W| - rate / 2 * O
        the rest:      w = w - rate * d,  where g contains weight_decay * w

    BatchNorm follows the convolutions of kshot's backbones, so that only the direction of W matters: its length is held
    at about that of O, and half of the rate is by how much a step turns it. Weight decay would change nothing but that
    length, and leaves convolutions out. ``torch.optim.Muon`` takes matrices alone.

    Parameters
    ----------
    parameters
        Those with four axes are convolutions.
    lr
        The rate.
    momentum, nesterov, weight_decay
        As for ``torch.optim.SGD``.
    bf16
        Whether the Newton-Schulz steps are in bfloat16, as those of Jordan et al.; otherwise in the type of the
        weights. Weights and momentum keep their type.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
        bf16: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(parameters, defaults)
        self._bf16 = bf16

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient; `closure` is refused, as nothing here needs one."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradients before the step")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, weight.grad, group)

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        is_convolution = weight.ndim == 4
        if not is_convolution:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        average = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(average, alpha=group["momentum"]) if group["nesterov"] else average
        if not is_convolution:
            weight.sub_(direction, alpha=group["lr"])
            return
        rows = direction.flatten(1)
        turn = _orthogonal(rows.bfloat16() if self._bf16 else rows).to(weight.dtype).view(weight.shape)
        weight.mul_(math.sqrt(len(weight)) / weight.norm()).sub_(turn, alpha=_TURN * group["lr"])


def _orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought near 1, 0.7 to 1.2, by the quintic of Jordan et al."""
    a, b, c = _COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = len(x) > x.shape[1]
    x = x.mT if tall else x
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
