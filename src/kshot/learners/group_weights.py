"""The initialisations of several groups of tasks: apart from each other, or a common part and an offset per group."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kshot.learners.initialization import Classifier
from kshot.solvers.descent import Weights

_APART = 0.01  # of a weight's size: how far groups start from each other before k-means has placed them


class SeparateWeights(nn.ModuleList):
    """theta_1..theta_m, each with weights of its own (Z21).

    Parameters
    ----------
    network
        What the first group starts from; the others start close by, at random: initialisations in one place would all
        be nearest, or none.
    groups
        m.
    """

    def __init__(self, network: Classifier, groups: int) -> None:
        super().__init__([network, *(_neighbour(network) for _ in range(groups - 1))])

    def of_group(self, group: int) -> Weights:
        """theta_k by name."""
        return dict(self[group].named_parameters())

    @torch.no_grad()
    def place(self, network: nn.Module, names: Sequence[str], vectors: Tensor) -> None:
        """Put theta_k at the weights of `network` plus row k of `vectors` (m, D) in the weights with these names."""
        for initialization, vector in zip(self, vectors):
            initialization.load_state_dict(network.state_dict())
            _add(initialization, names, vector)

    def penalty(self, chosen: Sequence[int]) -> Tensor | None:
        """None: weights of their own are not held together."""
        return None


class CommonAndOffsets(nn.Module):
    """theta_k = theta_0 + delta_k, where delta_k is `scale` times parameters of the group.

    Parameters
    ----------
    network
        What theta_0 starts from; all delta_k but the first start a little off zero, at random.
    groups
        m.
    scale
        How fast delta_k learns compared with theta_0.
    decay
        Strength of the penalty on delta_k.
    """

    def __init__(self, network: Classifier, groups: int, *, scale: float, decay: float) -> None:
        super().__init__()
        self.common, self.scale, self.decay = network, scale, decay
        self.offsets = nn.ModuleList([_zeros(network), *(_difference(network) for _ in range(groups - 1))])

    def of_group(self, group: int) -> Weights:
        """theta_k by name, in the graph of theta_0 and of the group's parameters."""
        offset = dict(self.offsets[group].named_parameters())
        return {name: weight + self.scale * offset[name] for name, weight in self.common.named_parameters()}

    @torch.no_grad()
    def place(self, network: nn.Module, names: Sequence[str], vectors: Tensor) -> None:
        """As for `SeparateWeights`; theta_0 takes the mean of the groups, which keeps the offsets short."""
        mean = vectors.mean(0)
        self.common.load_state_dict(network.state_dict())
        _add(self.common, names, mean)
        for offset, vector in zip(self.offsets, vectors):
            for weight in offset.parameters():
                weight.zero_()
            _add(offset, names, (vector - mean) / self.scale)

    def penalty(self, chosen: Sequence[int]) -> Tensor | None:
        """Half of `decay` times |delta_k|^2, averaged over tasks with these groups; None without decay."""
        if self.decay == 0:
            return None
        sizes = {
            group: torch.stack([weight.square().sum() for weight in self.offsets[group].parameters()]).sum()
            for group in set(chosen)
        }
        return 0.5 * self.decay * self.scale**2 * torch.stack([sizes[group] for group in chosen]).mean()


def _add(part: nn.Module, names: Sequence[str], vector: Tensor) -> None:
    """Add a vector (D,) to the weights with these names, one after the other."""
    weights = dict(part.named_parameters())
    for name, piece in zip(names, vector.split([weights[name].numel() for name in names])):
        weights[name].add_(piece.view_as(weights[name]))


@torch.no_grad()
def _neighbour(network: Classifier) -> Classifier:
    """A copy, each weight a little off at random."""
    other = copy.deepcopy(network)
    for weight in other.parameters():
        weight.add_(_APART * weight.square().mean().sqrt() * torch.randn_like(weight))
    return other


@torch.no_grad()
def _zeros(network: Classifier) -> Classifier:
    """A copy whose parameters are zero."""
    other = copy.deepcopy(network)
    for weight in other.parameters():
        weight.zero_()
    return other


@torch.no_grad()
def _difference(network: Classifier) -> Classifier:
    """A neighbour, less the network itself."""
    other = _neighbour(network)
    for weight, centre in zip(other.parameters(), network.parameters()):
        weight.sub_(centre)
    return other
