"""The questions that a classifier answers about itself, from examples that were left out or from known photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import did_you_mean
from kshot.photos.estimate import Estimate
from kshot.photos.evaluation import PhotoEvaluation, evaluated
from kshot.photos.evidence import Evidence
from kshot.photos.files import class_folders
from kshot.photos.inputs import ClassesError, NotYetFittedError, names_of
from kshot.photos.learning_curve import ShotsNeeded
from kshot.photos.verdicts import ExampleVerdict


class TrustedAnswers:
    """How far to trust a classifier: what `FewShotClassifier` has for that, by the evidence that it was fitted to."""

    classes_: NDArray[Any]
    _evidence: Evidence

    def estimate(self, *, progress: bool = False) -> Estimate | None:
        """The accuracy to expect on new photographs; None if no class has two examples.

        Heads are fitted to all but one series of EACH class, in rounds, and recognise what was left out. A series is
        examples of a class that nearly repeat each other. Its `caution` says what the estimate cannot know.
        """
        self._check_fitted()
        return self._evidence.estimate(progress=progress)

    def examples(self) -> list[ExampleVerdict]:
        """What is thought of each example by what was learnt without it: the most doubtful first."""
        self._check_fitted()
        return self._evidence.verdicts()

    def shots_needed(self, target: float = 0.95) -> ShotsNeeded:
        """How many photographs per class give an accuracy of `target`, extrapolated from heads with fewer examples.

        Raises
        ------
        ConfigError
            If no classes were learnt yet, every class has a single example, or `target` is not between chance and 1.
        """
        self._check_fitted()
        return self._evidence.shots_needed(target)

    def evaluate(self, X: Any, y: Any = None) -> PhotoEvaluation:
        """How photographs of known classes are recognised.

        Parameters
        ----------
        X
            A folder that holds one folder of photographs per class, or what `predict` takes, with `y`.
        y
            The class of each image, (M,).

        Raises
        ------
        DataError
            If a class was not learnt, or a file is no image.
        ConfigError
            If no classes were learnt yet.
        """
        self._check_fitted()
        if isinstance(X, (str, Path)) and y is None:
            X, y = class_folders(X, least=1)
        numbers = {name: number for number, name in enumerate(self.classes_.tolist())}
        unknown = sorted({str(name) for name in np.asarray(y).tolist() if name not in numbers})
        if unknown:
            raise ClassesError(
                f"the classifier has not learnt {', '.join(unknown)}{did_you_mean(unknown[0], map(str, numbers))}; "
                f"it knows {', '.join(map(str, list(numbers)[:10]))}"
            )
        labels = np.asarray([numbers[name] for name in np.asarray(y).tolist()], np.int64)
        return evaluated(self.predict_proba(X), labels, names_of(X), list(self.classes_))

    @property
    def temperature(self) -> float:
        """What scores are divided by so that probabilities are calibrated; 1 if no class has two examples."""
        self._check_fitted()
        return self._evidence.temperature

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The calibrated probability of each class for each image, (M, N)."""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        if not hasattr(self, "_evidence"):
            raise NotYetFittedError(
                f"this {type(self).__name__} is not fitted: it has learnt no classes yet; call fit with a folder of "
                "examples first"
            )
