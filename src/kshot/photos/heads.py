"""Heads that answer small classes as readily as large ones: a person has 2 photographs of this and 10 of that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kshot.solvers import HeadAdaptation, LinearHead, LogisticRegression
from kshot.solvers.anderson import Smoother, accelerated
from kshot.solvers.heads import Head, check_support
from kshot.solvers.objective import SupportObjective

_LARGE = 1_000_000  # scores of support images from which logistic regression is solved in float32
_LARGE_TOLERANCE = 0.1  # a loose bound on its scores; probabilities were within 4e-3 of the optimum
_MOST_DRAWS = 16


def balanced_head(adaptation: HeadAdaptation, features: Tensor, labels: Tensor, ways: int) -> Head:
    """A head that takes every class for equally likely, however many examples it has.

    Logistic regression is fitted as it is, and the log of each class's share of the examples is taken off its bias
    (Menon et al. 2021, eq. 10). On photographs of five groceries, 2 examples of one and 10 of the others, that
    recognises 92 % of the small class, repeating its examples 75 %, and neither 46 %. Other heads are averaged over
    draws of equally many examples per class (Liu et al. 2009, EasyEnsemble). For class means, this takes off the
    distance by which the mean of few examples is farther from anything than that of many.

    Parameters
    ----------
    adaptation
        Fits the head.
    features, labels
        Support features (B, S, D) with classes (B, S), of which every task has equally many.
    ways
        N, the number of classes.

    Raises
    ------
    ConfigError, DataError, DivergenceError
        The examples cannot be learnt from; see `kshot.solvers.heads.check_support`.
    """
    counts = labels[0].bincount(minlength=ways)
    if type(adaptation) is LogisticRegression:
        head = _logistic(adaptation, features, labels, ways)
        shares = counts.clamp(min=1).to(head.bias.dtype).log()
        return LinearHead(head.weight, head.bias - (shares - shares.mean()))
    least, most = int(counts.min()), int(counts.max())
    if least == most or least == 0:
        return adaptation.head(features, labels, ways)
    draws = min(_MOST_DRAWS, -(-most // least))
    rows = torch.cat([_equal_draws(task, ways, least, draws) for task in labels])
    task = torch.arange(len(labels), device=labels.device).repeat_interleave(draws)[:, None]
    return MeanHead(adaptation.head(features[task, rows], labels[task, rows], ways), draws)


@dataclass(frozen=True)
class MeanHead:
    """The mean of the scores of several heads per task, which are tasks to `head`: those of the first task first."""

    head: Head
    draws: int

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D)."""
        scores = self.head.scores(features.repeat_interleave(self.draws, 0))
        return scores.unflatten(0, (len(features), self.draws)).mean(1)


def _equal_draws(labels: Tensor, ways: int, count: int, draws: int) -> Tensor:
    """Rows (draws, N * count) with `count` examples per class, each draw taking the next ones of a class in turn."""
    of_class = [(labels == way).nonzero()[:, 0] for way in range(ways)]
    return torch.cat([rows.repeat(count * draws)[: count * draws].view(draws, count) for rows in of_class], 1)


def _logistic(adaptation: LogisticRegression, features: Tensor, labels: Tensor, ways: int) -> LinearHead:
    """The optimum; of very many classes an approximation in float32, which saves minutes."""
    if ways * features.shape[1] < _LARGE:
        return adaptation.head(features, labels, ways)
    check_support(features, labels, ways)
    heads = [_approximate(task[None], classes[None], ways, adaptation.c) for task, classes in zip(features, labels)]
    return LinearHead(torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads]))


@torch.no_grad()
def _approximate(features: Tensor, labels: Tensor, ways: int, c: float) -> LinearHead:
    mean = features.mean(1, keepdim=True)
    centred = features.float() - mean
    objective = SupportObjective.of(centred, labels, ways, c)
    scores, _ = accelerated(objective, Smoother.of(centred, objective), tol=_LARGE_TOLERANCE)
    weight = objective.errors(scores).mul_(-c) @ centred
    bias = scores.mean(2) - (weight @ mean.mT).squeeze(2)
    return LinearHead(weight, bias - bias.mean(1, keepdim=True))
