"""Classifiers of a person's own photographs."""

from kshot.photos.classifier import PhotoClassifier, Predictions, images_at

__all__ = ["PhotoClassifier", "Predictions", "images_at"]
