"""What a classifier is given, read: photographs become features by its backbone, features are taken as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_consistent_length, validate_data
from torch import Tensor
from torch.nn import functional

from kshot.data.images import find_value_range
from kshot.errors import ConfigError
from kshot.photos.cache import FeatureCache
from kshot.photos.evidence import Evidence
from kshot.photos.features import PhotoFeatures, photo_features
from kshot.photos.files import images_at, warn_of_skipped
from kshot.photos.inputs import ClassesError, adaptation_of, are_photographs, listed, network_of
from kshot.photos.network import PhotoNetwork
from kshot.photos.views import example_views
from kshot.solvers import HeadAdaptation


@dataclass(frozen=True, eq=False)
class GivenExamples:
    """Examples that were read.

    Attributes
    ----------
    features, plain
        As for `kshot.photos.examples.Examples`.
    labels
        The class of each, (M,).
    images
        What was given, without broken files.
    thumbnails
        (M, H, W, C) uint8; None if features were given.
    """

    features: Tensor
    plain: Tensor
    labels: NDArray[Any]
    images: Any
    thumbnails: NDArray[np.uint8] | None


class ReadsPhotographs:
    """How `FewShotClassifier` reads what it is given."""

    backbone: Any
    head: str | HeadAdaptation | None
    augment: bool
    cache: bool
    _evidence: Evidence
    _fitted_to_photographs: bool
    _value_range: Any

    def nearest_examples(self, X: Any) -> NDArray[np.int64]:
        """The number of the example that each image resembles most, (M,); parameters and errors as for `predict`."""
        images, examples = self._asked(X), self._evidence.examples.plain
        unit = [functional.normalize(features.double(), dim=1) for features in (images, examples)]
        return (unit[0] @ unit[1].mT).argmax(1).numpy()

    def _given(self, X: Any, y: Any, first: bool, *, skip_broken: bool, progress: bool) -> GivenExamples:
        """The examples of `fit`, or of `partial_fit` if they are not the first ones."""
        X = listed(X)
        if not are_photographs(X):
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=first)
            features = torch.from_numpy(np.array(X))
            if first:
                self._value_range = None
            return GivenExamples(features, features, y, X, None)
        check_consistent_length(X, y)
        if not len(X):
            raise ClassesError("there are no examples; give at least one of each of two classes")
        y = np.asarray(y)
        if first:  # new images are read as the first examples are
            self._value_range = find_value_range(X) if isinstance(X[0], (str, Path)) else None
        read = self._features(X, skip_broken=skip_broken, progress=progress)
        warn_of_skipped(read.broken, without=set(y) - set(y[read.places]))
        X, y = [X[place] for place in read.places], y[read.places]
        views = example_views(self._network()) if self.augment else None
        features = read.features if views is None else self._features(X, network=views, progress=progress).features
        return GivenExamples(features, read.features, y, X, read.thumbnails)

    def _asked(self, X: Any) -> Tensor:
        """Features (M, D) of whatever `predict` takes."""
        self._check_fitted()
        X = [X] if isinstance(X, (str, Path)) else listed(X)
        if are_photographs(X):
            if not self._fitted_to_photographs:
                raise ConfigError("this classifier was fitted to features, and can recognise features only")
            X = images_at(X) if not len(X) or isinstance(X[0], (str, Path)) else X
            return self._features(X).features
        if self._fitted_to_photographs:
            raise ConfigError("this classifier was fitted to photographs, and can recognise photographs only")
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return torch.from_numpy(np.array(X)).to(self._evidence.examples.features.dtype)

    def _features(
        self,
        images: Sequence[Any],
        *,
        network: PhotoNetwork | None = None,
        skip_broken: bool = False,
        progress: bool = False,
    ) -> PhotoFeatures:
        return photo_features(
            self._network() if network is None else network,
            images,
            value_range=self._value_range,
            skip_broken=skip_broken,
            cache=FeatureCache() if self.cache else None,
            progress=progress,
        )

    def _network(self) -> PhotoNetwork:
        return network_of(self.backbone)

    def _adaptation(self) -> HeadAdaptation:
        own = self._fitted_to_photographs and not isinstance(self.backbone, str)
        return adaptation_of(self.head, self._network() if own else None)

    def _check_fitted(self) -> None:
        raise NotImplementedError
