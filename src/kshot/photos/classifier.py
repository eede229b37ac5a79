"""Recognise a person's own classes from a few photographs of each: a classifier of the kind that scikit-learn knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from kshot.errors import ConfigError
from kshot.photos.evidence import Evidence
from kshot.photos.examples import Examples, joined, series_of, warn_of_copies
from kshot.photos.files import Predictions, Recognised, class_folders, images_at
from kshot.photos.heads import balanced_head
from kshot.photos.inputs import ClassesError, names_of
from kshot.photos.kept import KeptClassifier
from kshot.photos.network import PhotoNetwork
from kshot.photos.reading import ReadsPhotographs
from kshot.photos.rejection import familiarity, sets_of
from kshot.photos.trust import TrustedAnswers
from kshot.solvers import HeadAdaptation

if TYPE_CHECKING:
    from kshot.runs.run import Run


class FewShotClassifier(TrustedAnswers, KeptClassifier, ReadsPhotographs, ClassifierMixin, BaseEstimator):
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
    augment
        See each example mirrored and cropped, too, with a backbone of EfficientNet-Lite; fitting takes four times as
        long, and predicting no longer.
    seed
        Names the order in which examples are left out.
    cache
        Keep the features and thumbnails of image files in the cache folder of this platform, so that a file of the same
        content need not be read again.

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
        augment: bool = True,
        seed: int = 0,
        cache: bool = True,
    ) -> None:
        self.backbone = backbone
        self.head = head
        self.augment = augment
        self.seed = seed
        self.cache = cache

    def fit(self, X: Any, y: Any = None, *, skip_broken: bool = False, progress: bool = False) -> FewShotClassifier:
        """Learn the classes of examples.

        Parameters
        ----------
        X
            A folder that holds one folder of photographs per class, or one of these with `y`: a list of image files, a
            list of Pillow's images, images (M, H, W, C) uint8, or features (M, D), which are taken as they are.
        y
            The class of each example, (M,).
        skip_broken
            Leave out files that cannot be read, with a warning that names them.
        progress
            Show a bar on the terminal.

        Raises
        ------
        DataError
            If there are fewer than two classes, a class is empty, or a file is no image.
        ConfigError
            If the backbone or the head cannot be used.
        """
        return self._learn(X, y, None, skip_broken, progress)

    def partial_fit(
        self, X: Any, y: Any = None, *, classes: Any = None, skip_broken: bool = False, progress: bool = False
    ) -> FewShotClassifier:
        """Learn further examples, of known or of new classes, as if they had been there from the start.

        Parameters
        ----------
        X, y, skip_broken, progress
            As for `fit`; the earlier photographs are not needed again.
        classes
            All classes that may ever come, as scikit-learn's tools say them; another one is an error. None for any.

        Raises
        ------
        DataError, ConfigError
            As for `fit`.
        """
        if not hasattr(self, "classes_"):
            return self._learn(X, y, classes, skip_broken, progress)
        return self._learn(X, y, classes, skip_broken, progress, earlier=self._evidence.examples)

    def _learn(
        self, X: Any, y: Any, allowed: Any, skip_broken: bool, progress: bool, earlier: Examples | None = None
    ) -> FewShotClassifier:
        if isinstance(X, (str, Path)):
            if y is not None:
                raise ClassesError(f"the folders in {X} say the classes; leave out y, or give a list of image files")
            X, y = class_folders(X, least=2 if earlier is None else 1)
        elif y is None:
            raise ClassesError("requires y to be passed, but the target y is None; give the class of each example")
        given = self._given(X, y, earlier is None, skip_broken=skip_broken, progress=progress)
        features, plain, seen, y = given.features, given.plain, given.thumbnails, given.labels
        photographs = seen is not None
        if earlier is not None and photographs != self._fitted_to_photographs:
            raise ConfigError("the earlier examples were photographs, or features, and the new ones are not; fit anew")
        check_classification_targets(y)
        if allowed is not None and (unknown := sorted({str(name) for name in np.setdiff1d(y, allowed)})):
            raise ClassesError(f"examples are of {', '.join(unknown)}, which `classes` does not name; add them there")
        names = names_of(given.images, 0 if earlier is None else len(earlier))
        if earlier is not None:
            features = torch.cat([earlier.features, features.to(earlier.features.dtype)])
            plain = torch.cat([earlier.plain, plain.to(earlier.plain.dtype)])
            y = np.concatenate([self.classes_[earlier.labels.numpy()], y])
            names = [*earlier.names, *names]
        classes, numbers = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ClassesError("the examples are of one class, and there is nothing to tell apart; give a second class")
        labels = torch.from_numpy(numbers.astype(np.int64))
        self._thumbnails = joined(None if earlier is None else self._thumbnails, seen, earlier is None)
        if self._thumbnails is not None:
            warn_of_copies(self._thumbnails, labels, names, list(classes))
        self._fitted_to_photographs, self.classes_ = photographs, classes
        adaptation = self._adaptation()
        series = series_of(
            plain,
            labels,
            cosine=getattr(self._network(), "same_series", None) if photographs else None,
            images=self._thumbnails,
            earlier=None if earlier is None else earlier.series,
        )
        self._head = balanced_head(adaptation, features[None], labels[None], len(classes))
        self._evidence = Evidence(
            adaptation, Examples(features, plain, labels, series, names), list(classes), seed=self.seed
        )
        return self

    def predict(self, X: Any, *, reject: float | None = None) -> NDArray[Any]:
        """The class of each image, (M,); None, in an array of objects, for images that show none of the classes.

        Parameters
        ----------
        X
            Image files, folders of them, or a single one of these; images as for `fit`; or features (M, D), if it was
            fitted to features.
        reject
            Refuse images that resemble no class, so that about this share, such as 0.05, of images that do show one is
            refused, as examples tell that were left out. None refuses nothing.

        Raises
        ------
        ConfigError
            If no classes were learnt yet, or `reject` is given and every class has a single example.
        DataError
            If there is no image, a place does not exist, or a file is no image.
        """
        features = self._asked(X)
        answers: NDArray[Any] = self.classes_[self._scored(features).argmax(1)]
        if reject is None:
            return answers
        refused = self._familiarity(features) < self._evidence.lowest_familiarity(reject)
        answers = answers.astype(object)
        answers[refused] = None
        return answers

    def predict_set(self, X: Any, *, coverage: float = 0.9) -> list[list[Any]]:
        """The classes that each image may show, the most probable first: never none, several if it is unsure.

        Parameters
        ----------
        X
            As for `predict`.
        coverage
            The share of images whose true class is to be in their set, as examples tell that were left out (Vovk et
            al. 2005, Sadinle et al. 2019).

        Raises
        ------
        ConfigError, DataError
            As for `predict`.
        """
        probabilities = self.predict_proba(X)
        inside = sets_of(probabilities, self._evidence.largest_rank(coverage))
        order = (-probabilities).argsort(1, kind="stable")
        return [[self.classes_[way] for way in ways if members[way]] for ways, members in zip(order, inside)]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The calibrated probability of each class for each image of `X`, (M, N); otherwise as `predict`."""
        scores = self._scores(X)
        return self._evidence.probabilities(scores)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores (M, N) of `X`, or, if there are two classes, of the second less the first, (M,); else as `predict`."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The accuracy, 0..1, on images and their classes, or on a folder that holds one folder per class.

        Parameters
        ----------
        X
            Images, as for `predict`; or, without y, a folder that holds one folder per class.
        y
            The class of each image; None if X is such a folder.
        sample_weight
            The weight of each image, (M,); None for equal ones.
        """
        if isinstance(X, (str, Path)) and y is None:
            X, y = class_folders(X)
        return float(accuracy_score(y, self.predict(X), sample_weight=sample_weight))

    def recognise(
        self, images: Path | str | Sequence[Path | str], *, skip_broken: bool = False, progress: bool = False
    ) -> Recognised:
        """Scores and thumbnails of image files, or of those in folders; errors as for `predict`.

        Parameters
        ----------
        images
            Image files, folders of them, or a single one of these.
        skip_broken
            Leave out files that cannot be read; the answer names them.
        progress
            Show a bar on the terminal.
        """
        self._check_fitted()
        paths = images_at([images] if isinstance(images, (str, Path)) else images)
        read = self._features(paths, skip_broken=skip_broken, progress=progress)
        names, kept = [str(name) for name in self.classes_], [paths[place] for place in read.places]
        scores, familiar = self._scored(read.features), self._familiarity(read.features)
        return Recognised(kept, names, scores, read.thumbnails, familiar, read.broken)

    def calibrated(self, recognised: Recognised, *, reject: float | None = None) -> Predictions:
        """The calibrated probabilities for what was `recognised` by `recognise`; `reject` and errors as for `predict`.

        The first call leaves examples out.
        """
        limit = None if reject is None else self._evidence.lowest_familiarity(reject)
        probabilities = self._evidence.probabilities(recognised.scores)
        refused = None if limit is None else recognised.familiarity < limit
        return Predictions(recognised.paths, recognised.class_names, probabilities, recognised.images, refused)

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Scores (M, N) of whatever `predict` takes."""
        return self._scored(self._asked(X))

    def _scored(self, features: Tensor) -> NDArray[np.float64]:
        return self._head.scores(features[None])[0].detach().double().numpy()

    def _familiarity(self, features: Tensor) -> NDArray[np.float64]:
        examples = self._evidence.examples
        return familiarity(features[None], examples.features[None], examples.labels[None])[0].double().numpy()
