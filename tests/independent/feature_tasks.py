"""Tasks of features that the heads of this folder are held against, in float64: classes overlap and are unequal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kshot.solvers import HeadAdaptation

SIZES, QUERIES, DIMENSION, TASKS = (3, 5, 2, 4), (9, 2, 6, 0), 12, 3
WAYS = len(SIZES)
Task = tuple[Tensor, Tensor, Tensor]  # support (S, D), labels (S,), query (T, D)


def draw_tasks(sizes: tuple[int, ...] = SIZES, queries: tuple[int, ...] = QUERIES) -> tuple[Tensor, Tensor, Tensor]:
    """Support (B, S, D) with labels (B, S) in no order, and query (B, T, D) in no order; no value is negative."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(TASKS, len(sizes), DIMENSION, generator=generator, dtype=torch.float64)

    def draw(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels = torch.stack([labels[torch.randperm(len(labels), generator=generator)] for _ in range(TASKS)])
        noise = torch.randn(*labels.shape, DIMENSION, generator=generator, dtype=torch.float64)
        features = centres.take_along_dim(labels.unsqueeze(-1), 1) + noise
        return features.abs(), labels

    support, labels = draw(sizes)
    return support, labels, draw(queries)[0]


def check_head(
    adaptation: HeadAdaptation,
    plain: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    atol: float = 1e-9,
    sizes: tuple[int, ...] = SIZES,
    queries: tuple[int, ...] = QUERIES,
) -> None:
    """The softmax of the scores of all tasks is that of `plain` (support, labels, query), of one task at a time."""
    support, labels, query = draw_tasks(sizes, queries)
    scores = adaptation.head(support, labels, len(sizes)).scores(query)
    assert scores.dtype == torch.float64
    expected = torch.stack([plain(*task) for task in zip(support, labels, query)])
    torch.testing.assert_close(scores.softmax(-1), expected.softmax(-1), rtol=0, atol=atol)
    # a comparison in which every prediction is the same, or certain, would show little
    assert len(expected.argmax(-1).unique()) > 1
    assert expected.softmax(-1).std() > 1e-3


def unit(vectors: Tensor) -> Tensor:
    """Vectors (M, D) of length 1."""
    return torch.stack([vector / vector.norm() for vector in vectors])


def means(features: Tensor, labels: Tensor) -> Tensor:
    """The mean (N, D) of the features (S, D) of each class."""
    return torch.stack([features[labels == way].mean(0) for way in range(int(labels.max()) + 1)])


def one_hot(labels: Tensor) -> Tensor:
    """(S, N)."""
    return torch.eye(int(labels.max()) + 1, dtype=torch.float64)[labels]
