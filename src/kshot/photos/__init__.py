"""Classifiers of a person's own photographs."""

from kshot.photos.calibration import expected_calibration_error
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.estimate import ClassEstimate, Estimate
from kshot.photos.evaluation import ClassResult, Mistake, PhotoEvaluation
from kshot.photos.features import PhotoFeatures, photo_features
from kshot.photos.files import Predictions, Recognised, images_at
from kshot.photos.learning_curve import CurvePoint, ShotsNeeded
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork
from kshot.photos.saving import Saved
from kshot.photos.verdicts import ExampleVerdict

__all__ = [
    "ClassEstimate",
    "ClassResult",
    "CurvePoint",
    "Estimate",
    "ExampleVerdict",
    "FewShotClassifier",
    "LearnerNetwork",
    "Mistake",
    "PhotoEvaluation",
    "PhotoFeatures",
    "PhotoNetwork",
    "Predictions",
    "PretrainedNetwork",
    "Recognised",
    "Saved",
    "ShotsNeeded",
    "expected_calibration_error",
    "images_at",
    "photo_features",
]
