"""What a classifier has learnt from: the features of examples, their classes, and which of them repeat each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

SAME_SERIES = 0.9  # cosine of two photographs of one class that count as taken in one series


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of N classes.

    Attributes
    ----------
    features
        (S, D).
    labels
        Class of each example, (S,) int64 in 0..N-1.
    series
        Number of the series that each example belongs to, (S,) int64. The photographs of a series nearly repeat each
        other; all are of one class.
    names
        What each example is called: its file, or "example 3".
    """

    features: Tensor
    labels: Tensor
    series: Tensor
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


def series_of(features: Tensor, labels: Tensor, *, cosine: float = SAME_SERIES) -> Tensor:
    """Number of each example's series, (S,) int64: examples of a class that resemble each other, directly or by others.

    Parameters
    ----------
    features, labels
        The examples, (S, D) and (S,).
    cosine
        From which on two features belong together.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    pairs = []
    for way in labels.unique():
        rows = (labels == way).nonzero()[:, 0]
        near = (unit[rows] @ unit[rows].mT >= cosine).nonzero()
        pairs.append(rows[near].numpy())
    first, second = np.concatenate([np.empty((0, 2), np.int64), *pairs]).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(labels), len(labels)))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def joined(earlier: NDArray[np.uint8] | None, new: NDArray[np.uint8] | None, first: bool) -> NDArray[np.uint8] | None:
    """Thumbnails of all examples, (S, H, W, C); None if those of some are not known.

    Parameters
    ----------
    earlier, new
        Of the earlier examples and of the new ones; None if they are not known.
    first
        Whether there are no earlier examples.
    """
    if first or new is None:
        return new
    return None if earlier is None else np.concatenate([earlier, new])


def warn_of_copies(images: NDArray[np.uint8], labels: Tensor, names: Sequence[str], classes: Sequence[object]) -> None:
    """Say which photographs are in two classes: those whose pixels have the same hash."""
    seen: dict[bytes, int] = {}
    for number, image in enumerate(images):
        first = seen.setdefault(sha256(image.tobytes()).digest(), number)
        if labels[first] != labels[number]:
            warnings.warn(
                f"{names[first]} and {names[number]} are the same photograph, but one is an example of "
                f"{classes[int(labels[first])]} and the other of {classes[int(labels[number])]}; remove one of them",
                stacklevel=4,
            )
