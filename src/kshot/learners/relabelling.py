"""What a task's solution is apart from the numbers of its classes: descents on the same images under other labels."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_positive
from kshot.solvers.descent import Weights


def cyclic_shifts(episodes: Episodes, shifts: int) -> Episodes:
    """The support sets under several numberings of their classes, (B*shifts) tasks without query images.

    Parameters
    ----------
    episodes
        B tasks of N classes.
    shifts
        S, at most N: label y becomes y + s mod N for s = 0..S-1. The S tasks of one support set stand side by side.
    """
    labels = episodes.support_labels[:, None] + torch.arange(shifts, device=episodes.support_labels.device)[:, None]
    support = episodes.support.repeat_interleave(shifts, 0)
    return replace(
        episodes,
        support=support,
        support_labels=(labels % episodes.ways).flatten(0, 1),
        query=support[:, :0],
        query_labels=support.new_zeros((len(support), 0), dtype=torch.int64),
        classes=episodes.classes.repeat_interleave(shifts, 0),
        keys=episodes.keys.repeat(shifts),
    )


def mean_losses_over_shifts(scores: Tensor, labels: Tensor, shifts: int) -> Tensor:
    """The mean cross-entropy (B,) of scores (B, S, N) over images and over cyclic shifts of the labels (B, S).

    It is the cross-entropy against the mean of the shifted labels, which for all N shifts is uniform: then it says
    nothing about which images belong together.
    """
    targets = sum(F.one_hot((labels + shift) % scores.shape[-1], scores.shape[-1]) for shift in range(shifts))
    return -(scores.log_softmax(-1) * targets).sum(-1).mean(1) / shifts


def with_equal_rows(weights: Weights) -> Weights:
    """The weights (B, ...) with the mean of the head's rows in the place of each."""
    weight, bias = weights["head.weight"], weights["head.bias"]
    rows = {"head.weight": weight.mean(1, keepdim=True).expand_as(weight), "head.bias": torch.zeros_like(bias)}
    return weights | rows


def check_shifts(symmetrize: str, shifts: int | None, ways: int) -> None:
    """ConfigError unless labels of so many ways can be shifted in this way, so many times."""
    if symmetrize != "none" and ways == 1:
        raise ConfigError(
            f"symmetrize is {symmetrize!r}, but tasks of one way are regression and have no labels; leave it out"
        )
    if shifts is None:
        return
    check_positive(shifts=shifts)
    if symmetrize != "shifts":
        raise ConfigError(
            f"shifts is {shifts}, but symmetrize is {symmetrize!r}; write symmetrize='shifts' or no shifts"
        )
    if shifts > ways:
        raise ConfigError(f"shifts is {shifts}, but labels of {ways} ways have only {ways} cyclic shifts; choose fewer")
