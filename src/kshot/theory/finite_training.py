"""Multi-task learning and ANIL on networks of finite width, trained by full-batch gradient descent until they fit.

Both work on outputs minus those at initialisation, as the predictors do, for which a network starts at zero. The loss
is half the sum of squared residuals over all points of all tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.errors import ConfigError, DivergenceError
from kshot.memory import keep_freed_memory
from kshot.theory.kernels import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import adapt_head


@dataclass(frozen=True)
class Trained:
    """A network after training, ready to predict.

    initial, network: before and after, with the head that a new task starts from.
    steps: of gradient descent that were taken.
    residual: norm of the residuals on the training tasks, over the norm of their targets.
    """

    initial: ReLUNetwork
    network: ReLUNetwork
    steps: int
    residual: float

    @torch.no_grad()
    def predict(self, query: Tensor, support: Tensor, support_targets: Tensor, time: float = 0.0) -> Tensor:
        """Predictions (B, q) for query points (B, q, d), after the head was trained on the support set for `time`."""
        values = self._outputs(query)
        if time > 0:
            missing = support_targets - self._outputs(support)
            values = values + adapt_head(self._last_layer_kernel, query, support, missing, time).values
        return values

    def _outputs(self, points: Tensor) -> Tensor:
        flat = points.flatten(0, -2).to(self.network.head.weight.dtype)
        return (self.network(flat) - self.initial(flat))[:, 0].unflatten(0, points.shape[:-1]).double()

    def _last_layer_kernel(self, points: Tensor, others: Tensor) -> Kernels:
        dtype = self.network.head.weight.dtype
        first, second = (self.network.features(part.to(dtype)).double() for part in (points, others))
        nngp = first @ second.mT
        return Kernels(nngp, nngp)


def stable_rate(network: ReLUNetwork, inputs: Tensor) -> float:
    """Half of the learning rate at which gradient descent on tasks (N, n, d) would diverge at infinite width."""
    ntk = kernels(inputs.flatten(0, 1), depth=len(network.hidden) + 1, network=network.network).ntk
    return 1 / float(torch.linalg.eigvalsh(ntk)[-1])


def train_mtl(
    network: ReLUNetwork, inputs: Tensor, targets: Tensor, rate: float, tolerance: float = 1e-3, max_steps: int = 20_000
) -> Trained:
    """Train the hidden layers jointly with a head for each task, all heads starting from the network's own.

    A new task starts from that head as it was before training (W21, eq. 6 and Lemma 1).

    network: with one output; it is left as it was.
    inputs, targets: training tasks (N, n, d) and (N, n).
    rate: of gradient descent, such as `stable_rate`; it diverges from 2 over the largest eigenvalue of the NTK on.
    tolerance: training ends when the norm of the residuals is below this part of the norm of the targets.

    Raises DivergenceError where the residuals grow beyond the targets, ConfigError for options without sense.
    """
    trained = copy.deepcopy(network)
    heads = trained.head.weight.detach().repeat(len(inputs), 1).requires_grad_()
    wanted = _wanted(network, inputs, targets)

    def residuals() -> Tensor:
        return _features(trained, inputs) @ heads[..., None] - wanted

    weights = [*trained.hidden.parameters(), heads]
    steps, residual = _descend(weights, residuals, targets, rate, tolerance, max_steps)
    return Trained(network, trained, steps, residual)


def train_anil(
    network: ReLUNetwork,
    inputs: Tensor,
    targets: Tensor,
    rate: float,
    inner_time: float,
    inner_steps: int = 5,
    tolerance: float = 1e-3,
    max_steps: int = 20_000,
) -> Trained:
    """Meta-train a network whose head is adapted to each task by an inner loop, through which gradients flow.

    The loss after the inner loop is on the points that the inner loop saw, as in W21: support and query are the same.

    inner_time: learning rate of the inner loop times `inner_steps`. The rest as `train_mtl`.
    """
    if inner_steps < 1 or not inner_time >= 0:
        raise ConfigError(
            f"{inner_steps} inner steps in a time of {inner_time}; one step and a time of 0 are the least"
        )
    trained = copy.deepcopy(network)
    wanted = _wanted(network, inputs, targets)
    inner_rate = inner_time / inner_steps

    def residuals() -> Tensor:
        features = _features(trained, inputs)
        head = trained.head.weight.mT.expand(len(inputs), -1, -1)
        left = features @ head - wanted
        if inner_time > 0:
            for _ in range(inner_steps):
                head = head - inner_rate * features.mT @ left
                left = features @ head - wanted
        return left

    steps, residual = _descend(list(trained.parameters()), residuals, targets, rate, tolerance, max_steps)
    return Trained(network, trained, steps, residual)


def _features(network: ReLUNetwork, inputs: Tensor) -> Tensor:
    """Features (N, n, width) of the points of all tasks."""
    return network.features(inputs.flatten(0, 1).to(network.head.weight.dtype)).unflatten(0, inputs.shape[:2])


@torch.no_grad()
def _wanted(network: ReLUNetwork, inputs: Tensor, targets: Tensor) -> Tensor:
    """Targets plus outputs at initialisation, (N, n, 1)."""
    start = network(inputs.flatten(0, 1).to(network.head.weight.dtype)).unflatten(0, inputs.shape[:2])
    return targets[..., None].to(start.dtype) + start


def _descend(
    weights: Sequence[Tensor],
    residuals: Callable[[], Tensor],
    targets: Tensor,
    rate: float,
    tolerance: float,
    max_steps: int,
) -> tuple[int, float]:
    """Gradient descent in place; returns the steps taken and the relative norm of the residuals at the end."""
    if not (rate > 0 and tolerance > 0 and max_steps > 0):
        raise ConfigError(f"rate {rate}, tolerance {tolerance} and max_steps {max_steps} all need to be positive")
    keep_freed_memory()  # gradients of a megabyte, mapped anew in each step, make it up to five times as long
    size = float(targets.norm())
    for step in range(max_steps + 1):
        left = residuals()
        relative = float(left.detach().norm()) / size
        if not relative < 10:
            raise DivergenceError(
                f"the residuals grew to {relative:.1e} times the targets by step {step}; lower the rate or the targets"
            )
        if relative <= tolerance or step == max_steps:
            break
        gradients = torch.autograd.grad(left.square().sum() / 2, list(weights))
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                weight.sub_(gradient, alpha=rate)
    return step, relative
