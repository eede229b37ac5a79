"""Squared distances, and the graph of nearest neighbours, for a batch of tasks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kshot.solvers.products import Array, inner_products

_FEW = 8  # neighbours; so many are found faster one after the other than by a partial sort


def squared_distances(images: Tensor) -> Tensor:
    """|x - y|^2 (B, M, M) of the images (B, M, D) of each task from each other."""
    products = inner_products(images)
    squared = products.diagonal(dim1=1, dim2=2).unsqueeze(1)
    return (squared + squared.mT).sub_(products, alpha=2).clamp_(min=0)


def nearest_neighbours(distances: Array, count: int) -> Array:
    """Which images are among the `count` nearest of each other image, 1 or 0, of distances (B, M, M).

    ROW i holds the distances of image i from the others, up to what is the same for all of them, and COLUMN i of the
    result its neighbours, never itself. If there are fewer other images than `count`, all of them are.
    """
    images = distances.shape[-1]
    count = min(count, images - 1)
    if not isinstance(distances, Tensor):
        return _nearest_in_arrays(distances, count)
    adjacent = torch.zeros_like(distances)
    if count == 0:
        return adjacent
    others = distances.mT.clone()
    others.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    if count > _FEW:
        nearest = others.mT.topk(count, dim=2, largest=False).indices
        return adjacent.scatter_(1, nearest.mT, 1)
    for _ in range(count):
        nearest = others.min(1, keepdim=True).indices  # several times as fast as argmin
        others.scatter_(1, nearest, torch.inf)
        adjacent.scatter_(1, nearest, 1)
    return adjacent


def _nearest_in_arrays(distances: Array, count: int) -> Array:
    others, adjacent = distances.copy(), np.zeros_like(distances)
    tasks, images = others.shape[:2]
    task, image = np.arange(tasks)[:, None], np.arange(images)
    others[:, image, image] = np.inf
    if count > _FEW:
        nearest = np.argpartition(others, count - 1, 2)[:, :, :count]
        np.put_along_axis(adjacent, nearest.swapaxes(1, 2), 1, 1)
        return adjacent
    for _ in range(count):
        nearest = others.argmin(2)
        others[task, image, nearest] = np.inf
        adjacent[task, nearest, image] = 1
    return adjacent
