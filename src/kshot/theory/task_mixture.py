"""Regression tasks from a mixture of groups, as Z21 supposes them, whose population risk is known exactly.

Inputs x are uniform on the unit sphere of R^d, a task is a vector w, and its targets follow a generalised linear model
with the scores x.w. With A the log-partition function of the model, the loss of theta on a sample is A(s) - y s,
s = x.theta: half the squared error but for a constant (linear), the cross-entropy (logistic). It is convex, and its
minimiser in the population is w itself. Since |x| = 1, the loss is smooth with L_s = max A'' and Lipschitz with
G = max |A'(s) - y|, so that every constant in the bounds of Zhou et al. (2021) is known.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import roots_jacobi
from torch import Tensor
from torch.nn.functional import softplus

# nodes of the quadrature: the logistic risk is right to 1e-9 of itself for weights of length 10, to 1e-6 for 15
_RADII, _ANGLES = 16, 32


class Family(ABC):
    """A generalised linear model of targets given scores.

    Attributes
    ----------
    name
        In tables.
    smoothness
        L_s, the largest A''.
    """

    name: ClassVar[str]
    smoothness: ClassVar[float]

    @abstractmethod
    def log_partition(self, scores: Tensor) -> Tensor:
        """A(s) of the scores (...), elementwise."""

    @abstractmethod
    def mean(self, scores: Tensor) -> Tensor:
        """A'(s) of the scores (...), the expected target, elementwise."""

    @abstractmethod
    def draw(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """A target for each of the true scores (...), drawn with `generator`."""

    @abstractmethod
    def lipschitz(self, distance: float, travel: float) -> float:
        """G: the largest gradient that the loss of any sample can have at weights that gradient descent can reach.

        Parameters
        ----------
        distance
            From the start to the task's optimum.
        travel
            Rate a <= 1 / L_s times number of steps.
        """

    def excess_risk(self, theta: Tensor, optimum: Tensor) -> Tensor:
        """L(theta) - L(optimum) in the population, (B,), for weights (B, d); exact by quadrature, differentiable.

        It is the mean over x of A(s) - A(t) - A'(t) (s - t) with s = x.theta and t = x.optimum. Both scores depend on
        x only through its projection onto the plane of the two vectors.

        Parameters
        ----------
        theta
            Weights (B, d).
        optimum
            The true weights (B, d).
        """
        points, weights = _plane_nodes(optimum.shape[-1])
        length = torch.linalg.vector_norm(optimum, dim=-1, keepdim=True)
        direction = torch.where(
            length > 0, optimum / length.clamp(min=torch.finfo(optimum.dtype).tiny), _first(optimum)
        )
        along = (theta * direction).sum(-1, keepdim=True)
        across = torch.linalg.vector_norm(theta - along * direction, dim=-1, keepdim=True)
        scores = along * points[:, 0] + across * points[:, 1]
        true_scores = length * points[:, 0]
        divergence = (
            self.log_partition(scores)
            - self.log_partition(true_scores)
            - self.mean(true_scores) * (scores - true_scores)
        )
        return divergence @ weights


class Linear(Family):
    """Linear regression, y = x.w + noise; the noise is uniform in [-noise, noise].

    Parameters
    ----------
    noise
        Bound of the noise.
    """

    name, smoothness = "linear", 1.0

    def __init__(self, noise: float = 1.0) -> None:
        self.noise = noise

    def log_partition(self, scores: Tensor) -> Tensor:
        """s^2 / 2."""
        return scores.square() / 2

    def mean(self, scores: Tensor) -> Tensor:
        """The score itself."""
        return scores

    def draw(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """The true scores plus bounded noise."""
        uniform = torch.rand(scores.shape, generator=generator, dtype=scores.dtype)
        return scores + self.noise * (2 * uniform - 1)

    def lipschitz(self, distance: float, travel: float) -> float:
        """The largest |x.(theta - w) - noise|: each step lengthens theta - w by at most rate * noise."""
        return distance + (travel + 1) * self.noise

    def excess_risk(self, theta: Tensor, optimum: Tensor) -> Tensor:
        """|theta - optimum|^2 / (2 d), since the mean of x x' is I / d."""
        return (theta - optimum).square().sum(-1) / (2 * optimum.shape[-1])


class Logistic(Family):
    """Logistic regression, y = 1 with probability sigmoid(x.w), otherwise 0."""

    name, smoothness = "logistic", 0.25

    def log_partition(self, scores: Tensor) -> Tensor:
        """log(1 + exp(s))."""
        return softplus(scores)

    def mean(self, scores: Tensor) -> Tensor:
        """sigmoid(s)."""
        return scores.sigmoid()

    def draw(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """Zeros and ones."""
        return torch.bernoulli(scores.sigmoid(), generator=generator)

    def lipschitz(self, distance: float, travel: float) -> float:
        """A probability and a label differ by at most 1, wherever theta is."""
        return 1.0


@dataclass(frozen=True)
class MixtureTasks:
    """B tasks with K samples each.

    Attributes
    ----------
    family
        The model of the targets.
    optimum
        w of each task, (B, d).
    inputs
        Samples of unit length, (B, K, d).
    targets
        Their targets, (B, K).
    """

    family: Family
    optimum: Tensor
    inputs: Tensor
    targets: Tensor

    def loss(self, theta: Tensor) -> Tensor:
        """L_D, the mean loss (B,) of weights theta (B, d) on the samples of each task."""
        scores = self._scores(theta)
        return (self.family.log_partition(scores) - self.targets * scores).mean(1)

    def gradient(self, theta: Tensor) -> Tensor:
        """The gradient (B, d) of `loss` at theta (B, d); differentiable itself."""
        errors = self.family.mean(self._scores(theta)) - self.targets
        return (errors.unsqueeze(1) @ self.inputs).squeeze(1) / self.targets.shape[1]

    def excess_risk(self, theta: Tensor) -> Tensor:
        """L(theta) - L(optimum) in the population, (B,), for theta (B, d)."""
        return self.family.excess_risk(theta, self.optimum)

    def population_gradient(self, theta: Tensor) -> Tensor:
        """The gradient (B, d) of the population risk at theta (B, d)."""
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.excess_risk(theta).sum(), theta)
        return gradient

    def adapted(self, start: Tensor, *, rate: float, steps: int) -> Tensor:
        """Weights (steps + 1, B, d): `start` (B, d), and the weights after each gradient step on the samples.

        Parameters
        ----------
        start
            Weights (B, d) that the descent starts from.
        rate
            Step size.
        steps
            How many steps of gradient descent.
        """
        path = [start]
        for _ in range(steps):
            path.append(path[-1] - rate * self.gradient(path[-1]))
        return torch.stack(path)

    def _scores(self, theta: Tensor) -> Tensor:
        """x.theta, (B, K)."""
        return (self.inputs @ theta.unsqueeze(2)).squeeze(2)


@dataclass(frozen=True)
class TaskMixture:
    """Groups of tasks: w lies on the sphere of radius `spread` around the centre of its group.

    Attributes
    ----------
    family
        The model of the targets.
    centres
        Centres of the groups, (groups, d), mutually orthogonal.
    spread
        Distance of a task from the centre of its group.
    """

    family: Family
    centres: Tensor
    spread: float

    @classmethod
    def random(
        cls, family: Family, generator: torch.Generator, *, groups: int, dimension: int, distance: float, spread: float
    ) -> TaskMixture:
        """Groups of tasks around orthogonal centres, all as far from the origin.

        Parameters
        ----------
        family
            Linear or logistic regression.
        generator
            Draws the directions of the centres.
        groups
            Number of centres, at most `dimension`.
        dimension
            d, the length of weights and inputs.
        distance
            Of each centre from the origin.
        spread
            Of each task's weights from the centre of its group.
        """
        directions = torch.linalg.qr(_normal((dimension, groups), generator)).Q
        return cls(family, distance * directions.mT.contiguous(), spread)

    def sample(self, count: int, generator: torch.Generator, *, shots: int, draws: int = 1) -> MixtureTasks:
        """Tasks with their samples; each group is equally likely.

        The sets of one task stand one after the other: with ``draws=2`` those of task 0 are rows 0 and 1.

        Parameters
        ----------
        count
            Number of tasks.
        generator
            Draws groups, weights, inputs and targets.
        shots
            Samples per set.
        draws
            Sets of samples per task.
        """
        dimension = self.centres.shape[1]
        group = torch.randint(len(self.centres), (count,), generator=generator)
        optimum = self.centres[group] + self.spread * _on_sphere((count, dimension), generator)
        optimum = optimum.repeat_interleave(draws, 0)
        inputs = _on_sphere((count * draws, shots, dimension), generator)
        targets = self.family.draw((inputs @ optimum.unsqueeze(2)).squeeze(2), generator)
        return MixtureTasks(self.family, optimum, inputs, targets)


@lru_cache
def _plane_nodes(dimension: int) -> tuple[Tensor, Tensor]:
    """Points (P, 2) and weights (P,): quadrature for two coordinates of a uniform point of the unit sphere of R^d.

    The point has the density (1 - r^2)^((d - 4) / 2) on the disc: Gauss-Jacobi in r^2, equal steps in the angle. The
    integrand is the same at x and -x, so that half a turn suffices. If d is 1 or 2 there is no disc.
    """
    if dimension == 1:
        return torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    radii, weights = np.ones(1), np.ones(1)
    if dimension > 2:
        nodes, weights = roots_jacobi(_RADII, (dimension - 4) / 2, 0)
        radii, weights = np.sqrt((1 + nodes) / 2), weights / weights.sum()
    angles = np.pi * np.arange(_ANGLES) / _ANGLES
    points = np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles))], -1)
    return torch.from_numpy(points.reshape(-1, 2)), torch.from_numpy(np.repeat(weights / _ANGLES, _ANGLES))


def _first(vectors: Tensor) -> Tensor:
    """The first unit vector, (d,): the direction that an optimum at the origin is given."""
    return torch.eye(vectors.shape[-1], dtype=vectors.dtype)[0]


def _on_sphere(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform points of the unit sphere."""
    return torch.nn.functional.normalize(_normal(shape, generator), dim=-1)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)
