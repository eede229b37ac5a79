"""Heads that look at all query images of a task together: their base class, and the checks that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kshot.errors import DataError, DivergenceError
from kshot.solvers.adaptation import HeadAdaptation
from kshot.solvers.heads import check_support, checked_scores
from kshot.solvers.products import inner_products
from kshot.solvers.transformed import joined_at_unit_length, tasks_at_once


class TransductiveAdaptation(HeadAdaptation):
    """Learns a task from its labelled support images and all its query images, which have no labels.

    The head keeps the support set, and solves the task when it is asked for scores: the query images of that call are
    the ones that are looked at together. How many there are of each class matters. Heads that were published with
    equally many of each class may expect that, and lose accuracy if it is not so (Veilleux et al. 2021).

    Attributes
    ----------
    least_queries
        The number of query images per task that the method needs.
    chunks
        How many times as many tasks are solved at once as have features that fit into the processor's cache: 1 if all
        features are read again and again, more if the method works on their inner products.
    """

    transductive: ClassVar[bool] = True
    passes_gradients: ClassVar[bool] = False
    least_queries: ClassVar[int] = 1
    chunks: ClassVar[int] = 1

    def head(self, features: Tensor, labels: Tensor, ways: int) -> JointHead:
        """The support features (B, S, D) with labels (B, S), kept until the query images are known."""
        check_support(features, labels, ways)
        return JointHead(self, features.detach(), labels, ways)

    @abstractmethod
    def joint_scores(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Scores (B, T, N) of the query images; no gradients are recorded.

        Everything is checked but that query features are finite, which `checked_scores` tells from the scores. A method
        that repeats until something settles calls it before.

        Parameters
        ----------
        support, labels
            Support features (B, S, D) with their classes (B, S).
        query
            Query features (B, T, D), which are looked at together.
        ways
            N, how many classes each task has.
        """


@dataclass(frozen=True, eq=False)
class JointHead:
    """The support set of a batch of tasks, features (B, S, D) and labels (B, S), and how it is used."""

    adaptation: TransductiveAdaptation
    support: Tensor
    labels: Tensor
    ways: int

    @torch.no_grad()
    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), which are looked at together.

        Raises
        ------
        DataError
            There are fewer query images than the method needs, or the features do not fit the support set.
        DivergenceError
            A feature is not a finite number.
        """
        tasks, dimension = len(self.support), self.support.shape[2]
        if features.dim() != 3 or (len(features), features.shape[2]) != (tasks, dimension):
            raise DataError(
                f"the query features are {tuple(features.shape)}, but these heads take (tasks, query images, dimension)"
                f" = ({tasks}, any, {dimension})"
            )
        queries, name = features.shape[1], type(self.adaptation).__name__
        if queries == 0:
            return features.new_empty(tasks, 0, self.ways)
        if queries < self.adaptation.least_queries:
            raise DataError(
                f"{name} looks at the query images of a task together and needs at least "
                f"{self.adaptation.least_queries} of them, but there is {queries}; give more, or choose a head that is "
                f"not transductive, such as logistic"
            )
        at_once = self.adaptation.chunks * tasks_at_once(features)
        scores = features.new_empty(tasks, queries, self.ways)
        for start in range(0, tasks, at_once):
            some = slice(start, start + at_once)
            part = self.support[some], self.labels[some], features[some]
            try:
                scores[some] = self.adaptation.joint_scores(*part, self.ways)
            except DivergenceError as error:
                error.task = start + (error.task or 0)
                raise
        return checked_scores(scores, features)


def joint_products(
    support: Tensor, query: Tensor, *, transform: Callable[[Tensor, Tensor], Tensor] = joined_at_unit_length
) -> Tensor:
    """Inner products (B, S + T, S + T) of a task's support (B, S, D) and query features (B, T, D), as transformed.

    The transform gives the images (B, S + T, D) of some tasks, which stay in the processor's cache until their
    products are taken.
    """
    at_once = tasks_at_once(query)
    parts = zip(support.split(at_once), query.split(at_once))
    return torch.cat([inner_products(transform(*part)) for part in parts])
