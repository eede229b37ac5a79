"""The networks that the closed-form kernels describe, at finite width."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import check_choice, check_positive
from kshot.theory.infinite_width import Network


class ReLUNetwork(nn.Module):
    """A network of finite width in the NTK parametrisation: standard normal weights, ``sqrt(2 / fan_in)`` outside.

    It maps points (n, in_features) to outputs (n, out_features). As `width` grows, its empirical kernels approach
    ``kernels(..., depth=depth, network=network)``, which says what the families of networks are.

    Parameters
    ----------
    in_features
        Dimension of the points.
    width
        Units in each hidden layer.
    depth
        Linear layers on the path through all blocks, at least 1.
    out_features
        Number of outputs.
    network
        Which of the four families of `kernels`.
    seed
        Names the weights: networks of the same seed, shape and family have the same ones.
    dtype
        Type of the weights and of all that is computed.

    Raises
    ------
    ConfigError
        For a size below 1 or an unknown family.
    """

    def __init__(
        self,
        in_features: int,
        *,
        width: int,
        depth: int,
        out_features: int = 1,
        network: Network = "relu",
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, width=width, depth=depth, out_features=out_features)
        check_choice("network", network, get_args(Network))
        sizes = [in_features, *[width] * (depth - 1), out_features]
        generator = torch.Generator().manual_seed(seed)
        self.network = network
        layers = [nn.Linear(*fans, bias=False, dtype=dtype) for fans in itertools.pairwise(sizes)]
        for layer in layers:
            nn.init.normal_(layer.weight, generator=generator)
        self.hidden = nn.ModuleList(layers[:-1])
        self.head = layers[-1]

    def forward(self, points: Tensor) -> Tensor:
        """Outputs (n, out_features) for points (n, in_features)."""
        return self.head(self.features(points))

    def features(self, points: Tensor) -> Tensor:
        """What the last layer reads of points (n, in_features): (n, width), whose inner products are its kernel."""
        if len(self.hidden) == 0:
            return _scaled(points)
        hidden = self.hidden[0](_scaled(points))
        if self.network == "residual-postnorm":
            hidden = _norm(hidden)
        for layer in list(self.hidden)[1:]:
            hidden = self._block(layer, hidden)
        if self.network == "residual-prenorm":
            hidden = _norm(hidden)
        return _scaled(hidden.relu())

    def _block(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        """One block of the family."""
        if self.network == "relu":
            return layer(_scaled(hidden.relu()))
        if self.network == "residual":
            return (hidden + layer(_scaled(hidden.relu()))) / math.sqrt(2)
        if self.network == "residual-postnorm":
            return _norm(hidden + layer(_scaled(hidden.relu())))
        return hidden + layer(_scaled(_norm(hidden).relu()))


def _scaled(values: Tensor) -> Tensor:
    """What He initialisation puts into the weights."""
    return values * math.sqrt(2 / values.shape[-1])


def _norm(hidden: Tensor) -> Tensor:
    """LayerNorm without scale and shift."""
    return F.layer_norm(hidden, hidden.shape[-1:])
