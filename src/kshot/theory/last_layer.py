"""The one objective of all last-layer learners (Wang, Zhao and Li 2021, "W21", equations 10 to 13).

A learner is a choice of f, the scores that a head w gives to features; of a loss; and of R, which keeps the head of a
task from being fitted to its support set alone:

    mean over tasks of  outer_loss(f(query; w*), labels)  with  w* = argmin_w  loss(f(support; w), labels) + R(w)

Early stopping and heads that are trained jointly are choices of R, too, though no formula in w expresses them; a
regulariser is therefore what finds the head. The code is plain rather than fast, for comparison with the learners.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import DataError, DivergenceError

Scores = Callable[[Tensor, Tensor], Tensor]  # head (B, N, P), features (B, M, D) -> scores (B, M, N)
Loss = Callable[[Tensor, Tensor], Tensor]  # scores (B, M, N), labels (B, M) -> (B,)

_NEWTON_STEPS, _HALVINGS = 100, 40
_PRECISION = 1e-13  # Newton's method stops at a relative change of the head below this


# f: what a head gives to features


def linear(head: Tensor, features: Tensor) -> Tensor:
    """w.x; a head is (B, N, D)."""
    return features @ head.mT


def affine(head: Tensor, features: Tensor) -> Tensor:
    """w.x + b; a head is (B, N, D + 1), the bias last."""
    return features @ head[..., :-1].mT + head[..., -1].unsqueeze(-2)


def negative_squared_distance(head: Tensor, features: Tensor) -> Tensor:
    """-|x - p|^2; a head is (B, N, D), one prototype p per class."""
    return -(features.unsqueeze(-2) - head.unsqueeze(-3)).square().sum(-1)


# loss


def mean_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over images of the cross-entropy."""
    return -_of_label(scores.log_softmax(-1), labels).mean(-1)


def summed_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum over images of the cross-entropy."""
    return -_of_label(scores.log_softmax(-1), labels).sum(-1)


def squared_error(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum over images and classes of the squared distance to one-hot labels."""
    return (scores - torch.nn.functional.one_hot(labels, scores.shape[-1])).square().sum((-2, -1))


def own_score(scores: Tensor, labels: Tensor) -> Tensor:
    """Minus the sum over images of the score of their own class; for prototypes, the distortion of k-means."""
    return -_of_label(scores, labels).sum(-1)


def _of_label(scores: Tensor, labels: Tensor) -> Tensor:
    """The score (B, M) of each image's own class."""
    return scores.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


# R


class Regularizer(ABC):
    """How the inner problem of a task is kept from fitting its support set alone."""

    @abstractmethod
    def argmin(self, losses: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The heads w* (B, N, P), differentiable in whatever `losses` and `start` depend on.

        Parameters
        ----------
        losses
            Maps heads to the loss (B,) of each task on its support set.
        start
            Heads (B, N, P) from which the search begins.
        """


class Joint(Regularizer):
    """No inner problem: the heads are parameters, and the OUTER minimisation is over them, too (W21, eq. 12)."""

    def argmin(self, losses: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The heads as they are."""
        return start


@dataclass(frozen=True)
class EarlyStopping(Regularizer):
    """A few steps of gradient descent from the start, which is a parameter (W21, eq. 4).

    Attributes
    ----------
    steps
        Number of gradient steps.
    rate
        Their learning rate.
    """

    steps: int
    rate: float

    def argmin(self, losses: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The heads after the steps."""
        heads = start
        for _ in range(self.steps):
            heads = heads - self.rate * _gradient(losses, heads)
        return heads


@dataclass(frozen=True)
class Penalty(Regularizer):
    """A penalty R on the heads; loss + R must be strictly convex and twice differentiable.

    Attributes
    ----------
    penalty
        Maps heads (B, N, P) to R, (B,).
    """

    penalty: Callable[[Tensor], Tensor]

    def argmin(self, losses: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        """The minimum, by Newton's method with halved steps.

        A last step from the minimum, with the Hessian held constant, leaves the value as it is and has the derivatives
        of the implicit function theorem.

        Raises
        ------
        DataError
            If loss + R is not strictly convex.
        DivergenceError
            If Newton's method does not arrive.
        """

        def total(heads: Tensor) -> Tensor:
            return losses(heads) + self.penalty(heads)

        heads = start.detach()
        for _ in range(_NEWTON_STEPS):
            step = _newton_step(total, heads).detach()
            heads = heads + _descending(total, heads, step) * step
            if (step.abs().amax((1, 2)) <= _PRECISION * (1 + heads.abs().amax((1, 2)))).all():
                return heads + _newton_step(total, heads)
        raise DivergenceError(f"Newton's method is not at the minimum of loss + R after {_NEWTON_STEPS} steps")


def no_penalty(head: Tensor) -> Tensor:
    """R = 0."""
    return head.new_zeros(len(head))


def l2(strength: float) -> Callable[[Tensor], Tensor]:
    """R = strength * |w|^2."""
    return lambda head: strength * head.square().sum((-2, -1))


def l2_but_for_bias(strength: float) -> Callable[[Tensor], Tensor]:
    """R = strength * |w|^2 without the bias, whose sum over classes, invisible to softmax, is held at zero."""
    return lambda head: strength * head[..., :-1].square().sum((-2, -1)) + head[..., -1].sum(-1).square()


# The objective


def objective(
    tasks: Episodes,
    start: Tensor,
    *,
    scores: Scores,
    loss: Loss,
    regularizer: Regularizer,
    outer_loss: Loss,
    outer_penalty: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The objective (W21, eqs. 10-13) on a batch of tasks, averaged over tasks: a scalar.

    Parameters
    ----------
    tasks
        Tasks with features (B, S, D) and (B, T, D) in place of images.
    start
        Heads (B, N, P) from which the regulariser starts to look for w*; with `Joint`, w* itself.
    scores
        f: maps heads (B, N, P) and features (B, M, D) to scores (B, M, N).
    loss
        Maps scores and labels (B, M) of the support set to a loss (B,) per task.
    regularizer
        R, which finds the heads.
    outer_loss
        Loss on the query set, like `loss`.
    outer_penalty
        Maps heads to R, (B,), which counts in the outer problem, too (Meta-MinibatchProx); None for no such term.
    """
    heads = regularizer.argmin(lambda heads: loss(scores(heads, tasks.support), tasks.support_labels), start)
    values = outer_loss(scores(heads, tasks.query), tasks.query_labels)
    return (values if outer_penalty is None else values + outer_penalty(heads)).mean()


def _gradient(losses: Callable[[Tensor], Tensor], heads: Tensor) -> Tensor:
    """The gradient (B, N, P) of each task's loss; differentiable."""
    if not heads.requires_grad:
        heads = heads.detach().requires_grad_()
    return torch.autograd.grad(losses(heads).sum(), heads, create_graph=True)[0]


def _newton_step(losses: Callable[[Tensor], Tensor], heads: Tensor) -> Tensor:
    """Minus the inverse Hessian, a constant, times the gradient, which is differentiable in all but the heads."""
    point = heads.detach().requires_grad_()
    gradient = _gradient(losses, point).flatten(1)
    count, size = gradient.shape
    rows = torch.eye(size, dtype=gradient.dtype).unsqueeze(1).expand(size, count, size)
    (hessian,) = torch.autograd.grad(gradient, point, rows, retain_graph=True, is_grads_batched=True)
    factor, failures = torch.linalg.cholesky_ex(hessian.flatten(2).transpose(0, 1))
    if failures.any():
        task = int(failures.nonzero()[0])
        raise DataError(f"loss + R of task {task} is not strictly convex in the head; choose an R that makes it so")
    return -torch.cholesky_solve(gradient.unsqueeze(2), factor).view_as(point)


@torch.no_grad()
def _descending(losses: Callable[[Tensor], Tensor], heads: Tensor, step: Tensor) -> Tensor:
    """The largest of 1, 1/2, 1/4, ... times the step that does not raise the task's loss, (B, 1, 1)."""
    before, length = losses(heads), torch.ones(len(heads), 1, 1, dtype=heads.dtype)
    for _ in range(_HALVINGS):
        # at the minimum, rounding may let the loss rise a little
        rises = losses(heads + length * step) > before + 1e-13 * before.abs()
        if not rises.any():
            break
        length = torch.where(rises[:, None, None], length / 2, length)
    return length
