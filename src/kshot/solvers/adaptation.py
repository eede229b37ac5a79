"""How a frozen feature learner learns a task: the base classes of adaptations, and their registry.

Each adaptation is in one file with the solver that it applies, and has one row in ``kshot/solvers/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.registry import Registry
from kshot.solvers.heads import Head


class HasFeatures(Protocol):
    """Anything that turns images (M, C, H, W) into features (M, D)."""

    def features(self, images: Tensor) -> Tensor:
        """Features (M, D) of images (M, C, H, W)."""
        ...


class Adaptation(ABC):
    """A way to learn a task from its support images; ``kshot.testing.check_adaptation`` checks what is promised here.

    Support sets may be unequal: one class has three images and another eleven.

    Attributes
    ----------
    follows_label_permutations
        Whether the scores are the same for every numbering of the classes of a task. True for most; False if, for
        example, the class of number 0 is the reference.
    transductive
        Whether the query images of a task are looked at together, so that the score of one depends on the others.
    magnifies_rounding
        Whether learning magnifies what rounding leaves of a gradient that is zero, as Adam does: scores in float32 and
        float64 are then less close.
    """

    follows_label_permutations: ClassVar[bool] = True
    transductive: ClassVar[bool] = False
    magnifies_rounding: ClassVar[bool] = False

    def __repr__(self) -> str:
        options = getattr(self, "options", {})
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"

    @property
    def description(self) -> str:
        """The registered name and the options, such as "logistic-c=3.0", which names results in files and tables."""
        options = getattr(self, "options", {})
        return "-".join([adaptations.name_of(self), *(f"{name}={value}" for name, value in options.items())])

    @abstractmethod
    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images, learnt from the support images and their labels.

        A transductive adaptation learns from the query images, too, which have no labels.

        Parameters
        ----------
        learner
            Turns images into features.
        episodes
            A batch of B tasks, their images normalised.
        """


class HeadAdaptation(Adaptation):
    """Fits a head to features and leaves the network alone, so that the feature of each image is computed once.

    Attributes
    ----------
    passes_gradients
        Whether gradients flow from the scores back to the features, so that the head can be used in training.
    """

    passes_gradients: ClassVar[bool] = True

    @property
    def lacks_training_mean(self) -> bool:
        """Whether `head` refuses to work before `centred_at` has told it the mean feature of the training images."""
        return False

    def centred_at(self, mean: Tensor) -> HeadAdaptation:
        """The same adaptation, told the `mean` feature (D,) of the training images, for which most have no use."""
        return self

    @abstractmethod
    def head(self, features: Tensor, labels: Tensor, ways: int) -> Head:
        """Learn each task from its support features.

        Parameters
        ----------
        features, labels
            Support features (B, S, D), floating point, with their classes (B, S), int64 in 0..ways-1.
        ways
            N, how many classes each task has.

        Raises
        ------
        ConfigError, DataError, DivergenceError
            The support set cannot be learnt from; see `kshot.solvers.heads.check_support`.
        """

    def scores(self, learner: HasFeatures, episodes: Episodes) -> Tensor:
        """Scores (B, T, N): support and query images go through the network together, then the head is fitted."""
        images = episodes.images()
        features = learner.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        boundary = episodes.support.shape[1]
        head = self.head(features[:, :boundary], episodes.support_labels, episodes.ways)
        return head.scores(features[:, boundary:])


adaptations: Registry[Adaptation] = Registry("adaptation")
