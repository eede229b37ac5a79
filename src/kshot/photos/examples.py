"""What a classifier has learnt from: the features of examples, their classes, and which of them repeat each other."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

_SAME = 0.9999  # cosine of features that are those of one photograph, copied
_HASH_SIDE = 8
_SAME_HASH = 5  # bits of 64 in which the hashes of a photograph and of its smaller or repeated copy may differ


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of N classes.

    Attributes
    ----------
    features
        What heads are fitted to, (S, D): of photographs the mean of several views, if they are augmented.
    plain
        What new photographs of the same would have, (S, D); the same numbers if nothing is augmented.
    labels
        Class of each example, (S,) int64 in 0..N-1.
    series
        Number of the series that each example belongs to, (S,) int64. The photographs of a series nearly repeat each
        other; all are of one class.
    names
        What each example is called: its file, or "example 3".
    """

    features: Tensor
    plain: Tensor
    labels: Tensor
    series: Tensor
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


def series_of(
    features: Tensor,
    labels: Tensor,
    *,
    cosine: float | None = None,
    images: NDArray[np.uint8] | None = None,
    earlier: Tensor | None = None,
) -> Tensor:
    """Number of each example's series, (S,) int64: examples of a class that resemble each other, directly or by others.

    Parameters
    ----------
    features, labels
        The examples, (S, D) and (S,).
    cosine
        From which on two features belong together; None for those of copies alone.
    images
        The examples, (S, H, W, C) uint8, to be compared by their hashes as well; None if they are not known.
    earlier
        The series of the first of the examples, which stay together; None for none.
    """
    unit = torch.nn.functional.normalize(features, dim=1)
    hashes = None if images is None else torch.from_numpy(_difference_hashes(images))
    known = torch.full_like(labels, -1)
    if earlier is not None:
        known[: len(earlier)] = earlier
    pairs = [torch.empty(0, 2, dtype=torch.int64)]
    for rows in _rows_of_classes(labels):
        near = unit[rows] @ unit[rows].mT >= (_SAME if cosine is None else cosine)
        if hashes is not None:
            near |= (hashes[rows, None] != hashes[None, rows]).sum(2) <= _SAME_HASH
        near |= (known[rows, None] == known[None, rows]) & (known[rows, None] >= 0)
        pairs.append(rows[near.nonzero()])
    first, second = torch.cat(pairs).numpy().T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(labels), len(labels)))
    return torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))


def _rows_of_classes(labels: Tensor) -> list[Tensor]:
    return list(labels.argsort(stable=True).split(labels.bincount().tolist()))


def _difference_hashes(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each of 8 x 8 places of each image is brighter than its right neighbour, (M, 64)."""
    size = (_HASH_SIDE + 1, _HASH_SIDE)
    grey = [Image.fromarray(np.squeeze(image)).convert("L").resize(size, Image.Resampling.BOX) for image in images]
    levels = np.stack([np.asarray(image, np.int16) for image in grey])
    return (levels[:, :, :-1] > levels[:, :, 1:]).reshape(len(images), -1)


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
