"""The networks that the closed-form kernels describe, at finite width."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.errors import ConfigError
from kshot.theory.kernels import Network


class ReLUNetwork(nn.Module):
    """A network of finite width in the NTK parametrisation: standard normal weights, ``sqrt(2 / fan_in)`` outside.

    Points (n, in_features) -> outputs (n, out_features). As `width` grows its empirical kernels approach
    ``kernels(..., depth, network)``, which says what the networks are.

    depth: linear layers on the path through all blocks, at least 1.
    seed: of the weights; networks with the same seed, shape and type have the same ones.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_features: int = 1,
        network: Network = "relu",
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        sizes = [in_features, *[width] * (depth - 1), out_features]
        if depth < 1 or min(sizes) < 1:
            raise ConfigError(f"a network of depth {depth} with layers of {sizes} units; all need to be 1 or more")
        if network not in get_args(Network):
            raise ConfigError(f"there is no network {network!r}; choose one of: {', '.join(get_args(Network))}")
        generator = torch.Generator().manual_seed(seed)
        self.network = network
        layers = [nn.Linear(*fans, bias=False, dtype=dtype) for fans in itertools.pairwise(sizes)]
        for layer in layers:
            nn.init.normal_(layer.weight, generator=generator)
        self.hidden = nn.ModuleList(layers[:-1])
        self.head = layers[-1]

    def forward(self, points: Tensor) -> Tensor:
        """Outputs (n, out_features)."""
        return self.head(self.features(points))

    def features(self, points: Tensor) -> Tensor:
        """What the last layer reads, (n, width), scaled so that their inner products are the last layer's kernel."""
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
        if self.network == "relu":
            return layer(_scaled(hidden.relu()))
        if self.network == "residual":
            return (hidden + layer(_scaled(hidden.relu()))) / math.sqrt(2)
        if self.network == "residual-postnorm":
            return _norm(hidden + layer(_scaled(hidden.relu())))
        return hidden + layer(_scaled(_norm(hidden).relu()))


def _scaled(values: Tensor) -> Tensor:
    return values * math.sqrt(2 / values.shape[-1])


def _norm(hidden: Tensor) -> Tensor:
    return F.layer_norm(hidden, hidden.shape[-1:])
