"""SimpleShot's head: class means of features that are centred by the mean of the training images (Wang et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from kshot.errors import ConfigError
from kshot.solvers.adaptation import HeadAdaptation, adaptations
from kshot.solvers.heads import check_support
from kshot.solvers.prototypes import nearest
from kshot.solvers.transformed import UnitLengthHead, unit_class_means


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

    def head(self, features: Tensor, labels: Tensor, ways: int) -> UnitLengthHead:
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
        check_support(features, labels, ways)
        mean = self.training_mean.to(features)
        if mean.shape != features.shape[2:]:
            raise ConfigError(
                f"simpleshot's mean feature is {tuple(mean.shape)}, but features have {features.shape[2]} values; "
                f"compute it with the same backbone"
            )

        def centred(features: Tensor) -> Tensor:
            return features - mean

        return UnitLengthHead(nearest(unit_class_means(centred(features), labels, ways)), centred)
