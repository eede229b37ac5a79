"""Classifiers of a person's own photographs."""

from kshot.photos.calibration import expected_calibration_error
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.estimate import ClassEstimate, Estimate
from kshot.photos.files import Predictions, Recognised, images_at
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork, photo_features

__all__ = [
    "ClassEstimate",
    "Estimate",
    "FewShotClassifier",
    "LearnerNetwork",
    "PhotoNetwork",
    "Predictions",
    "PretrainedNetwork",
    "Recognised",
    "expected_calibration_error",
    "images_at",
    "photo_features",
]
