"""Squared distances, and the graph of nearest neighbours, for a batch of tasks."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_distances(ones: Tensor, others: Tensor) -> Tensor:
    """|x - y|^2 (B, M, N) of features x (B, M, D) and y (B, N, D)."""
    lengths = ones.square().sum(-1).unsqueeze(2) + others.square().sum(-1).unsqueeze(1)
    return torch.baddbmm(lengths, ones, others.mT, alpha=-2).clamp_(min=0)


def nearest_neighbours(distances: Tensor, count: int) -> Tensor:
    """Which images are among the `count` nearest of each other image: (B, M, M) of distances (B, M, M), 1 or 0.

    Row i holds the neighbours of image i, never itself. If there are fewer other images than `count`, all of them are.
    """
    images = distances.shape[-1]
    count = min(count, images - 1)
    adjacent = torch.zeros_like(distances)
    if count == 0:
        return adjacent
    itself = torch.eye(images, dtype=torch.bool, device=distances.device)
    nearest = distances.masked_fill(itself, torch.inf).topk(count, largest=False).indices
    return adjacent.scatter_(2, nearest, 1)
