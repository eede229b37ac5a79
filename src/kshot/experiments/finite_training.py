"""Multi-task learning and ANIL on networks of finite width, trained by full-batch gradient descent until they fit.

Both work on outputs minus those at initialisation: in the predictors, too, a network starts at zero. The loss is half
the sum of squared residuals over all points of all tasks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError, check_positive
from kshot.memory import keep_freed_memory
from kshot.theory.infinite_width import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import adapt_head
from kshot.theory.tasks import RegressionTasks


@dataclass(frozen=True)
class Trained:
    """A network after training, ready to predict.

    Attributes
    ----------
    initial, network
        Before and after training, with the head that a new task starts from.
    steps
        Steps of gradient descent that were taken.
    residual
        Norm of the residuals on the training tasks, over the norm of their targets.
    """

    initial: ReLUNetwork
    network: ReLUNetwork
    steps: int
    residual: float

    @torch.no_grad()
    def predict(self, tasks: RegressionTasks, *, time: float = 0.0) -> Tensor:
        """Predictions (B, q) for the query points of the test tasks.

        Parameters
        ----------
        tasks
            Test tasks, with support sets (B, s, d) and query points (B, q, d).
        time
            Learning rate times steps of the head's training on the support set; 0 leaves the head as it is.
        """
        values = self._outputs(tasks.query)
        if time > 0:
            missing = tasks.support_targets - self._outputs(tasks.support)
            kernel = self._last_layer_kernel
            adapted = adapt_head(kernel, query=tasks.query, support=tasks.support, targets=missing, time=time)
            values = values + adapted.values
        return values

    def _outputs(self, points: Tensor) -> Tensor:
        """Outputs minus those at initialisation, (B, n), for points (B, n, d)."""
        flat = points.flatten(0, -2).to(self.network.head.weight.dtype)
        return (self.network(flat) - self.initial(flat))[:, 0].unflatten(0, points.shape[:-1]).double()

    def _last_layer_kernel(self, points: Tensor, others: Tensor) -> Kernels:
        dtype = self.network.head.weight.dtype
        first, second = (self.network.features(part.to(dtype)).double() for part in (points, others))
        nngp = first @ second.mT
        return Kernels(nngp, nngp)


def stable_rate(network: ReLUNetwork, tasks: RegressionTasks) -> float:
    """Half of the learning rate from which on gradient descent on the training tasks diverges at infinite width.

    Parameters
    ----------
    network
        Says which kernel: depth and kind of the layers.
    tasks
        The training tasks, inputs (N, n, d).
    """
    inputs, _ = _training_tasks(tasks)
    ntk = kernels(inputs.flatten(0, 1), depth=len(network.hidden) + 1, network=network.network).ntk
    return 1 / float(torch.linalg.eigvalsh(ntk)[-1])


def train_mtl(
    network: ReLUNetwork, tasks: RegressionTasks, *, rate: float, tolerance: float = 1e-3, max_steps: int = 20_000
) -> Trained:
    """Train the hidden layers jointly with one head per task (W21, eq. 2), all heads starting from the network's own.

    A new task starts from that head as it was before training (W21, eqs. 6-7 and Lemma 1).

    Parameters
    ----------
    network
        A network of one output; it is left as it is.
    tasks
        Training tasks of equal length, with scalar targets.
    rate
        Learning rate, such as `stable_rate`; descent diverges from 2 over the largest eigenvalue of the NTK on.
    tolerance
        Training ends when the norm of the residuals is below this share of the norm of the targets.
    max_steps
        Training ends after so many steps at the latest.

    Raises
    ------
    DivergenceError
        If the residuals grow to ten times the targets.
    ConfigError
        If an option is not positive.
    DataError
        If tasks differ in length.
    """
    inputs, targets = _training_tasks(tasks)
    trained = copy.deepcopy(network)
    heads = trained.head.weight.detach().repeat(len(inputs), 1).requires_grad_()
    wanted = _wanted(network, inputs, targets)

    def residuals() -> Tensor:
        return _features(trained, inputs) @ heads[..., None] - wanted

    weights = [*trained.hidden.parameters(), heads]
    steps, residual = _descend(weights, residuals, targets, rate=rate, tolerance=tolerance, max_steps=max_steps)
    return Trained(network, trained, steps, residual)


def train_anil(
    network: ReLUNetwork,
    tasks: RegressionTasks,
    *,
    rate: float,
    inner_time: float,
    inner_steps: int = 5,
    tolerance: float = 1e-3,
    max_steps: int = 20_000,
) -> Trained:
    """Meta-train a network whose head an inner loop adapts to each task; gradients flow through it (W21, eqs. 3-4).

    The outer loss is on the points that the inner loop saw, as in W21's theory: support and query sets are the same.

    Parameters
    ----------
    network, tasks, max_steps
        As for `train_mtl`.
    rate
        Learning rate of the outer loop, as in `train_mtl`.
    inner_time
        Learning rate of the inner loop times `inner_steps`.
    inner_steps
        Gradient steps of the inner loop.
    tolerance
        Training ends when the norm of the residuals after the inner loop is below this share of that of the targets.

    Raises
    ------
    DivergenceError, ConfigError, DataError
        As for `train_mtl`.
    """
    if inner_steps < 1 or not inner_time >= 0:
        raise ConfigError(
            f"{inner_steps} inner steps in a time of {inner_time}; give at least one step, and a time of 0 or more"
        )
    inputs, targets = _training_tasks(tasks)
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

    steps, residual = _descend(
        list(trained.parameters()), residuals, targets, rate=rate, tolerance=tolerance, max_steps=max_steps
    )
    return Trained(network, trained, steps, residual)


def _training_tasks(tasks: RegressionTasks) -> tuple[Tensor, Tensor]:
    """Inputs (N, n, d) and targets (N, n)."""
    inputs, targets = tasks.inputs, tasks.targets
    if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor):
        raise DataError("networks are trained on tasks of equal length; stack inputs (N, n, d) and targets (N, n)")
    return inputs, targets


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
    *,
    rate: float,
    tolerance: float,
    max_steps: int,
) -> tuple[int, float]:
    """Gradient descent in place; returns the steps taken and the relative norm of the residuals at the end."""
    check_positive(rate=rate, tolerance=tolerance, max_steps=max_steps)
    keep_freed_memory()  # mapping the gradients' megabytes again in each step takes up to five times as long
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
