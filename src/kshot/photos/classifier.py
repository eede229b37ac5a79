"""Recognise a person's own classes from a few photographs of each: a classifier of the kind that scikit-learn knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor

from kshot.data.images import find_value_range
from kshot.errors import ConfigError, DataError
from kshot.photos.calibration import fitted_temperature
from kshot.photos.estimate import Estimate, LeftOut, estimated, left_out_scores
from kshot.photos.files import Predictions, Recognised, class_folders, images_at
from kshot.photos.heads import balanced_head
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork, photo_features
from kshot.runs.run import Run
from kshot.solvers import HeadAdaptation, LogisticRegression
from kshot.solvers.adaptation import adaptations

_C = 10.0  # best or within half a point of it for 1 to 10 photographs per class, on features of unit length


class ClassesError(DataError, ValueError):
    """The examples are not of two or more classes, or say no classes at all."""


class NotYetFittedError(ConfigError, NotFittedError):
    """The classifier is asked before it has learnt anything."""


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Learns classes from a few photographs of each, or from a few rows of features, by a head on frozen features.

    Classes may differ in how many examples they have; all are taken for equally likely. Probabilities are calibrated on
    examples that were left out in turn. It is a scikit-learn classifier: pipelines, cross-validation and grid search
    take it.

    Parameters
    ----------
    backbone
        What turns photographs into features: the name of a pretrained backbone, a `Run`, or a `PhotoNetwork`. Features
        that are given as such need none.
    head
        How a head is fitted: a name of `kshot.adaptations`, or one of these with options, such as
        ``LogisticRegression(c=3)``. None for a run's own, and for ``LogisticRegression(c=10)`` otherwise.
    seed
        Names the order in which examples are left out.

    Attributes
    ----------
    classes_
        The N classes, sorted.
    n_features_in_
        D, if it was fitted to features.

    Examples
    --------
    >>> classifier = FewShotClassifier().fit("my_examples/")
    >>> classifier.predict("new_photos/")
    >>> print(classifier.estimate())
    """

    def __init__(
        self,
        backbone: str | Run | PhotoNetwork = "efficientnet-lite0",
        *,
        head: str | HeadAdaptation | None = None,
        seed: int = 0,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.seed = seed

    def fit(self, X: Any, y: Any = None, *, progress: bool = False) -> FewShotClassifier:
        """Learn the classes of examples.

        Parameters
        ----------
        X
            A folder that holds one folder of photographs per class, or one of these with `y`: a list of image files, a
            list of Pillow's images, images (M, H, W, C) uint8, or features (M, D), which are taken as they are.
        y
            The class of each example, (M,).
        progress
            Show a bar on the terminal.

        Raises
        ------
        DataError
            If there are fewer than two classes, a class is empty, or a file is no image.
        ConfigError
            If the backbone or the head cannot be used.
        """
        if isinstance(X, (str, Path)):
            if y is not None:
                raise ClassesError(f"the folders in {X} say the classes; leave out y, or give a list of image files")
            X, y = class_folders(X)
        elif y is None:
            raise ClassesError("requires y to be passed, but the target y is None; give the class of each example")
        if _are_photographs(X):
            check_consistent_length(X, y)
            if not len(X):
                raise ClassesError("there are no examples; give at least one of each of two classes")
            y = np.asarray(y)
            # new images are read as the examples are
            self._value_range = find_value_range(X) if isinstance(X[0], (str, Path)) else None
            features, self._fitted_to_photographs = self._features(X, progress)[0], True
        else:
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
            features, self._fitted_to_photographs = torch.from_numpy(np.array(X)), False
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ClassesError("the examples are of one class, and there is nothing to tell apart; give a second class")
        self._examples, self._labels = features, torch.from_numpy(labels.astype(np.int64))
        self._head = balanced_head(self._adaptation(), features[None], self._labels[None], len(self.classes_))
        self._known: dict[str, Any] = {}  # what is computed when it is first asked for
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each image, (M,).

        Parameters
        ----------
        X
            Image files, folders of them, or a single one of these; images as for `fit`; or features (M, D), if it was
            fitted to features.

        Raises
        ------
        ConfigError
            If no classes were learnt yet.
        DataError
            If there is no image, a place does not exist, or a file is no image.
        """
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The calibrated probability of each class for each image, (M, N); parameters and errors as for `predict`."""
        return self._probabilities(self._scores(X))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores (M, N), or of the second class less the first, (M,), if there are two; otherwise as `predict`."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The accuracy, 0..1, on images and their classes, or on a folder that holds one folder per class."""
        if isinstance(X, (str, Path)) and y is None:
            X, y = class_folders(X)
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def recognise(self, images: Path | str | Sequence[Path | str], *, progress: bool = False) -> Recognised:
        """Scores and pixels of image files, or of those in folders; parameters and errors as for `predict`."""
        self._check_fitted()
        paths = images_at([images] if isinstance(images, (str, Path)) else images)
        features, pixels = self._features(paths, progress)
        return Recognised(paths, [str(name) for name in self.classes_], self._scored(features), pixels)

    def calibrated(self, recognised: Recognised) -> Predictions:
        """The calibrated probabilities that go with the scores of `recognise`; the first call leaves examples out."""
        probabilities = self._probabilities(recognised.scores)
        return Predictions(recognised.paths, recognised.class_names, probabilities, recognised.images)

    def estimate(self, *, progress: bool = False) -> Estimate | None:
        """The accuracy to expect on new photographs; None if no class has two examples.

        Heads are fitted to all but one example of EACH class, in rounds, and recognise those. Photographs of one shoot
        resemble each other, and the estimate holds for photographs that resemble the examples as these do each other:
        it is too high if the new ones come from another place or day.
        """
        left_out = self._scores_of_left_out(progress)
        return None if left_out is None else estimated(left_out, list(self.classes_))

    @property
    def temperature(self) -> float:
        """What scores are divided by so that probabilities are calibrated; 1 if no class has two examples."""
        left_out = self._scores_of_left_out(progress=False)
        if "temperature" not in self._known:
            self._known["temperature"] = 1.0 if left_out is None else fitted_temperature(left_out)
        return self._known["temperature"]

    def _scores_of_left_out(self, progress: bool) -> LeftOut | None:
        self._check_fitted()
        if "left out" not in self._known:
            examples, labels, ways = self._examples, self._labels, len(self.classes_)
            self._known["left out"] = left_out_scores(
                self._adaptation(), examples, labels, ways, seed=self.seed, progress=progress
            )
        return self._known["left out"]

    def _probabilities(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return torch.from_numpy(scores / self.temperature).softmax(1).numpy()

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Scores (M, N) of whatever `predict` takes."""
        self._check_fitted()
        if isinstance(X, (str, Path)):
            X = [X]
        if _are_photographs(X):
            if not self._fitted_to_photographs:
                raise ConfigError("this classifier was fitted to features, and can recognise features only")
            X = images_at(X) if not len(X) or isinstance(X[0], (str, Path)) else X
            return self._scored(self._features(X, progress=False)[0])
        if self._fitted_to_photographs:
            raise ConfigError("this classifier was fitted to photographs, and can recognise photographs only")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self._scored(torch.from_numpy(np.array(X)).to(self._examples.dtype))

    def _scored(self, features: Tensor) -> NDArray[np.float64]:
        return self._head.scores(features[None])[0].detach().double().numpy()

    def _features(self, images: Sequence[Any], progress: bool) -> tuple[Tensor, NDArray[np.uint8]]:
        return photo_features(_network(self.backbone), images, value_range=self._value_range, progress=progress)

    def _adaptation(self) -> HeadAdaptation:
        """What fits heads; ConfigError for one that changes the network."""
        adaptation: Any = self.head
        if adaptation is None:
            needs_own = getattr(self, "_fitted_to_photographs", False) and not isinstance(self.backbone, str)
            own = getattr(_network(self.backbone), "adaptation", None) if needs_own else None
            return LogisticRegression(c=_C) if own is None else own
        if isinstance(adaptation, str):
            adaptation = adaptations[adaptation]()
        if not isinstance(adaptation, HeadAdaptation):
            raise ConfigError(f"the head is {adaptation!r}; choose one that leaves the network as it is, like logistic")
        return adaptation

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotYetFittedError(
                f"this {type(self).__name__} is not fitted: it has learnt no classes yet; call fit with a folder of "
                "examples first"
            )


def _are_photographs(X: Any) -> bool:
    """Whether X holds files, Pillow's images or arrays of pixels, and not rows of features."""
    if isinstance(X, np.ndarray):
        return X.ndim == 4 and X.dtype == np.uint8
    if not isinstance(X, (list, tuple)):
        return False
    return not len(X) or isinstance(X[0], (str, Path, Image.Image))


def _network(backbone: Any) -> PhotoNetwork:
    if isinstance(backbone, str):
        return _pretrained(backbone)
    return _of_run(backbone) if isinstance(backbone, Run) else backbone


@lru_cache(maxsize=2)
def _pretrained(name: str) -> PretrainedNetwork:
    return PretrainedNetwork(name)


def _of_run(run: Run) -> LearnerNetwork:
    return LearnerNetwork(run.learner, run.image_form)
