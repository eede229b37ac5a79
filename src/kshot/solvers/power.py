"""Class means of power-transformed features (Hu, Gripon and Pateux 2021)."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from kshot.errors import check_positive
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import check_support
from kshot.solvers.products import Array
from kshot.solvers.prototypes import nearest
from kshot.solvers.transformed import UnitLengthHead, unit_class_means

_EPSILON = 1e-6


@adaptations.register("power-centroid")
class PowerCentroid(HeadAdaptation):
    """Nearest centroid of features whose values are raised to a power, which makes them less skewed (Hu et al. 2021).

    Parameters
    ----------
    power
        beta of the transform; 1 leaves the features as they are, up to their length.
    """

    def __init__(self, *, power: float = 0.5) -> None:
        check_positive(power=power)
        self.power = power

    def head(self, features: Tensor, labels: Tensor, ways: int) -> UnitLengthHead:
        """The class means of transformed features (B, S, D) with labels (B, S)."""
        check_support(features, labels, ways)
        transform = functools.partial(power_transform, power=self.power)
        return UnitLengthHead(nearest(unit_class_means(features, labels, ways, transform=transform)), transform)


def power_transform(features: Array, power: float) -> Array:
    """(x + 1e-6)^power of each value (Hu et al. 2021, section 3.2), before unit length; any shape (..., D).

    The paper has features after a ReLU, which are not negative. Those of other networks are continued as an odd
    function, -(-x + 1e-6)^power.
    """
    with_sign = torch.copysign if isinstance(features, Tensor) else np.copysign
    return with_sign((abs(features) + _EPSILON) ** power, features)
