"""What a classifier is given: files, Pillow's images, arrays of pixels, or rows of features."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.exceptions import NotFittedError

from kshot.errors import ConfigError, DataError
from kshot.photos.network import LearnerNetwork, PhotoNetwork, pretrained
from kshot.solvers import HeadAdaptation, LogisticRegression
from kshot.solvers.adaptation import adaptations

C = 10.0  # of logistic regression: best or within half a point of it for 1 to 10 photographs per class


class ClassesError(DataError, ValueError):
    """The examples are not of two or more classes, or say no classes at all."""


class NotYetFittedError(ConfigError, NotFittedError):
    """The classifier is asked before it has learnt anything."""


def listed(X: Any) -> Any:
    """A list of the files that an array or a column of a table, such as pandas', holds; anything else as it is."""
    if isinstance(X, (str, Path, list, tuple)) or not hasattr(X, "__array__"):
        return X
    column = np.asarray(X)
    return column.tolist() if column.ndim == 1 and len(column) and isinstance(column[0], (str, Path)) else X


def are_photographs(X: Any) -> bool:
    """Whether X holds files, Pillow's images or arrays of pixels, and not rows of features."""
    if isinstance(X, np.ndarray):
        return X.ndim == 4 and X.dtype == np.uint8
    if not isinstance(X, (list, tuple)):
        return False
    return not len(X) or isinstance(X[0], (str, Path, Image.Image))


def network_of(backbone: Any) -> PhotoNetwork:
    """The network that a backbone's name, a run or a network itself stands for."""
    if isinstance(backbone, str):
        return pretrained(backbone)
    from kshot.runs.run import Run  # with its reports and Matplotlib, which a backbone with a name need not wait for

    return LearnerNetwork(backbone.learner, backbone.image_form) if isinstance(backbone, Run) else backbone


def adaptation_of(head: str | HeadAdaptation | None, network: PhotoNetwork | None) -> HeadAdaptation:
    """What fits heads: as `head` says, else a run's own, else logistic regression.

    Raises
    ------
    ConfigError
        If the head changes the network, or there is none of that name.
    """
    adaptation: Any = head
    if adaptation is None:
        own = getattr(network, "adaptation", None)
        return LogisticRegression(c=C) if own is None else own
    if isinstance(adaptation, str):
        adaptation = adaptations[adaptation]()
    if not isinstance(adaptation, HeadAdaptation):
        raise ConfigError(f"the head is {adaptation!r}; choose one that leaves the network as it is, like logistic")
    if adaptation.transductive:
        warnings.warn(
            f"the head {adaptation.description} looks at all new photographs of a call together: an answer depends on "
            f"the others, and the estimate holds for calls with about as many photographs of each class",
            stacklevel=3,
        )
    return adaptation


def names_of(X: Any, first: int = 0) -> list[str]:
    """What each example is called: its file, or its number from `first` on."""
    return [
        str(image) if isinstance(image, (str, Path)) else f"example {first + number}" for number, image in enumerate(X)
    ]
