"""NNGP and NTK kernels of infinitely wide ReLU networks in closed form (W21 section 4; Arora et al. 2019, section 3).

Every recursion runs on the angle between two points, through ``sin(angle / 2) ** 2``: unlike the cosine, it keeps its
digits at points that are equal or opposite, and no rounding error grows with depth.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kshot.errors import ConfigError, DataError, check_choice

Network = Literal["relu", "residual", "residual-prenorm", "residual-postnorm"]


class Kernels(NamedTuple):
    """The two kernels of a network, (..., n, m) each.

    Attributes
    ----------
    nngp
        Covariance of its outputs at initialisation, which is also the part of the NTK that the last layer contributes.
    ntk
        Inner products of its gradients with respect to all weights.
    """

    nngp: Tensor
    ntk: Tensor


def kernels(x1: Tensor, x2: Tensor | None = None, *, depth: int = 3, network: Network = "relu") -> Kernels:
    """NNGP and NTK of a ReLU network of infinite width: NTK parametrisation, He initialisation, no biases.

    With ``linear(z) = sqrt(2 / fan_in) W z`` and standard normal W, and ``norm`` a LayerNorm without scale and shift:

    - "relu": ``relu`` between `depth` linear layers;
    - "residual": after a first linear layer, depth - 2 blocks ``z -> (z + linear(relu(z))) / sqrt(2)``, then
      ``linear(relu(z))``. Without the ``sqrt(2)`` both kernels are 2 ** (depth - 2) times as large, nothing else;
    - "residual-postnorm": blocks ``z -> norm(z + linear(relu(z)))`` on a normalised first layer;
    - "residual-prenorm": blocks ``z -> z + linear(relu(norm(z)))``, then ``linear(relu(norm(z)))``.

    The NTK has a kink at pairs of points of the same or the opposite direction; its gradient there is the mean of both
    sides. On the diagonal of "relu" it is exactly `depth` times the NNGP.

    Parameters
    ----------
    x1
        Points (..., n, d); the kernels are computed in float64.
    x2
        Points (..., m, d), whose leading shape broadcasts with that of `x1`; None for `x1` itself.
    depth
        Linear layers on the path through all blocks, at least 1; a network of depth 1 is linear.
    network
        Which of the four families.

    Raises
    ------
    ConfigError
        For a depth below 1 or an unknown network.
    DataError
        For points that are zero (their angle is not defined), not finite, or of another dimension.
    """
    if depth < 1:
        raise ConfigError(f"depth is {depth}, but a network has at least one layer")
    check_choice("network", network, get_args(Network))
    first, second = _checked_points(x1, "x1"), _checked_points(x1 if x2 is None else x2, "x2")
    if first.shape[-1] != second.shape[-1]:
        raise DataError(f"the points of x1 have dimension {first.shape[-1]}, those of x2 {second.shape[-1]}")
    length1, length2 = (torch.linalg.vector_norm(points, dim=-1) for points in (first, second))
    angles = _angles_between(first / length1[..., None], second / length2[..., None])
    scale = 2 / first.shape[-1]
    if depth == 1:
        linear = scale * (length1[..., :, None] * length2[..., None, :]) * angles.cos
        return Kernels(linear, linear)
    if network == "residual-prenorm":
        return _prenorm(angles, scale * length1**2, scale * length2**2, depth)
    ratio = _relu(angles, depth) if network == "relu" else _residual(angles, depth)
    if network == "residual-postnorm":
        return ratio
    size = scale * (length1[..., :, None] * length2[..., None, :])
    return Kernels(size * ratio.nngp, size * ratio.ntk)


def _checked_points(points: Tensor, name: str) -> Tensor:
    """The points (..., n, d) in float64; DataError if one is zero or not finite, or the shape is another."""
    if points.ndim < 2:
        raise DataError(f"{name} has shape {tuple(points.shape)}, but points have shape (..., n, d)")
    points = points.double()
    if not points.isfinite().all():
        raise DataError(f"{name} holds numbers that are not finite")
    if not points.any(-1).all():
        position = (~points.any(-1)).nonzero()[0].tolist()
        raise DataError(
            f"{name} holds a zero vector, at {position}, whose angle to others is not defined; leave it out"
        )
    return points


class _Angles(NamedTuple):
    """Angles (..., n, m) between points, and ``sin(angle / 2) ** 2`` = (1 - cos) / 2 of each."""

    angle: Tensor
    half: Tensor

    @property
    def cos(self) -> Tensor:
        return 1 - 2 * self.half

    @property
    def active(self) -> Tensor:
        """Twice the share of ReLUs that are active for both of two points: the arc-cosine kernel of order 0."""
        return 1 - self.angle / math.pi

    def half_after_relu(self) -> Tensor:
        """`half` after a ReLU layer: the arc-cosine kernel of order 1 (Cho and Saul 2009)."""
        return self.half - (self.angle.sin() - self.angle * self.cos) / (2 * math.pi)


def _angles_between(unit1: Tensor, unit2: Tensor) -> _Angles:
    """Angles of unit vectors, exactly 0 for equal and pi for opposite ones (Kahan), with gradient 0 at both."""
    exact = "donot_use_mm_for_euclid_dist"
    apart = torch.cdist(unit1, unit2, compute_mode=exact)
    angle = 2 * torch.atan2(apart, torch.cdist(unit1, -unit2, compute_mode=exact))
    return _Angles(angle, (angle / 2).sin() ** 2)


def _angles(half: Tensor) -> _Angles:
    """Angles whose `half` is in [0, 1), with gradient 0 in the place of infinity at 0."""
    positive = half > 0
    return _Angles(2 * torch.where(positive, half, 0.5).sqrt().asin() * positive, half)


def _relu(angles: _Angles, depth: int) -> Kernels:
    """The kernels of "relu" for points of unit variance."""
    ntk = angles.cos
    for _ in range(depth - 1):
        active = angles.active
        angles = _angles(angles.half_after_relu())
        ntk = angles.cos + active * ntk
    return Kernels(angles.cos, ntk)


def _residual(angles: _Angles, depth: int) -> Kernels:
    """The kernels of "residual" for points of unit variance, for which LayerNorm after a block changes nothing."""
    ntk = angles.cos
    for _ in range(depth - 2):
        branch = angles.half_after_relu()
        ntk = ((1 + angles.active) * ntk + 1 - 2 * branch) / 2
        angles = _angles((angles.half + branch) / 2)
    return _read_out(angles, ntk)


def _prenorm(angles: _Angles, variance1: Tensor, variance2: Tensor, depth: int) -> Kernels:
    """The kernels for points whose first layer has variances (..., n) and (..., m); each block adds 1 to both."""
    size = (variance1[..., :, None] * variance2[..., None, :]).sqrt()
    ntk = angles.cos
    for _ in range(depth - 2):
        branch = angles.half_after_relu()
        # what unequal lengths alone contribute: next_size - size - 1 without its cancellation
        spread = (variance1.sqrt()[..., :, None] - variance2.sqrt()[..., None, :]) ** 2
        variance1, variance2 = variance1 + 1, variance2 + 1
        next_size = (variance1[..., :, None] * variance2[..., None, :]).sqrt()
        ntk = ((size + angles.active) * ntk + 1 - 2 * branch) / next_size
        angles = _angles((spread / (2 * (next_size + size + 1)) + size * angles.half + branch) / next_size)
        size = next_size
    return _read_out(angles, ntk)


def _read_out(angles: _Angles, ntk: Tensor) -> Kernels:
    """A last ReLU and the last linear layer."""
    nngp = 1 - 2 * angles.half_after_relu()
    return Kernels(nngp, nngp + angles.active * ntk)
