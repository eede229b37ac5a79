"""SimpleShot's head: class means of features that are centred by the mean of the training images (Wang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kshot.errors import ConfigError
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import LinearHead, check_contents, check_form, checked_scores, class_rows
from kshot.solvers.products import SHORTEST, Array, in_stages, lengths

_CLOSE = 1e-2  # to the mean, relative to the squared lengths of both


@adaptations.register("simpleshot")
class CentredCentroid(HeadAdaptation):
    """Nearest centroid of features that are centred and of unit length, CL2N of SimpleShot (Wang et al. 2019).

    Features are centred by their mean over all training images, which a head does not see: `centred_at` gives it.
    ``run.evaluate`` and `kshot.evaluate` of a dataset compute it from the training split.
    """

    def __init__(self) -> None:
        self.training_mean: Tensor | None = None

    @property
    def lacks_training_mean(self) -> bool:
        """Whether the mean is still unknown."""
        return self.training_mean is None

    def centred_at(self, mean: Tensor) -> CentredCentroid:
        """The same head with this mean feature (D,) of the training images."""
        told = CentredCentroid()
        told.training_mean = mean.detach()
        return told

    def head(self, features: Tensor, labels: Tensor, ways: int) -> CentredHead:
        """The class means of centred features (B, S, D) with labels (B, S).

        Raises
        ------
        ConfigError
            If the mean is not known, or has another size. Further errors are those of `check_support`.
        """
        if self.training_mean is None:
            raise ConfigError(
                "simpleshot centres features by their mean over the training images, which is not known here; evaluate "
                "a run or a whole dataset, or give CentredCentroid().centred_at(features.mean(0)) with the features of "
                "the training images"
            )
        check_form(features, labels, ways)
        mean = self.training_mean.to(features)
        if mean.shape != features.shape[2:]:
            raise ConfigError(
                f"simpleshot's mean feature is {tuple(mean.shape)}, but features have {features.shape[2]} values; "
                f"compute it with the same backbone"
            )

        members = class_rows(labels, ways, features.dtype)
        at = mean.expand(len(features), 1, -1)
        shares = members / members.sum(2, keepdim=True)
        weight, bias = in_stages(_nearest, shares, at, features, vectors=ways)
        check_contents(bias, labels, ways)
        return CentredHead(LinearHead(weight, bias[:, :, 0]), at)


@dataclass(frozen=True, eq=False)
class CentredHead:
    """A linear head for features that are centred at a mean (B, 1, D) and of unit length."""

    head: LinearHead
    mean: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Scores (B, T, N) of features (B, T, D), as the backbone gives them."""
        weight, bias = self.head.weight, self.head.bias.unsqueeze(2)
        (scores,) = in_stages(_scores, weight, bias, self.mean, features, vectors=weight.shape[1] + 1)
        return checked_scores(scores.mT.contiguous(), features)


def _nearest(shares: Array, mean: Array, features: Array) -> tuple[Array, Array]:
    """Weight and bias of `nearest_centroid`, of centred features of unit length."""
    mean, features, of_centred = _centred(mean, features)
    weights = shares / of_centred
    means = weights @ features - weights.sum(2, keepdims=True) * mean
    return 2 * means, -(lengths(means) ** 2)


def _scores(weight: Array, bias: Array, mean: Array, features: Array) -> tuple[Array]:
    """Scores (B, N, T) of features, once they are centred and of unit length."""
    mean, features, of_centred = _centred(mean, features)
    inner = weight @ features.swapaxes(1, 2) - weight @ mean.swapaxes(1, 2)
    return (inner / of_centred + bias,)


def _centred(mean: Array, features: Array) -> tuple[Array, Array, Array]:
    """What to centre at, features, and the lengths (B, 1, M) of these once they are centred; those of zeros stay zero.

    Inner products with centred features follow from those with features as they are, which saves a copy. Features that
    are close to the mean would lose too many digits; they are centred, and the mean is 0.
    """
    of_both = lengths(features).swapaxes(1, 2) ** 2 + lengths(mean) ** 2
    squared = of_both - 2 * (mean @ features.swapaxes(1, 2))
    if (squared < _CLOSE * of_both).any():
        features, mean = features - mean, 0 * mean
        return mean, features, lengths(features).clip(SHORTEST).swapaxes(1, 2)
    return mean, features, squared.clip(SHORTEST**2) ** 0.5
