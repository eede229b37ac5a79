"""Why training accuracy can be below validation accuracy, said from the configuration of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kshot.learners import learners
from kshot.report.content import RunContent


def why_training_is_lower(content: RunContent) -> str:
    """A sentence for a run whose training accuracy is below that of validation in the best epoch; else nothing."""
    metrics = content.metrics
    if metrics is None or not {"accuracy", "validation_accuracy"} <= metrics.keys():
        return ""
    training, validation = metrics["accuracy"], metrics["validation_accuracy"]
    if np.isnan(validation).all() or not training[np.nanargmax(validation)] < np.nanmax(validation):
        return ""
    reasons = [*_reasons(content.config), "it is an average over the epoch, validation measures the epoch's end"]
    return f"Training accuracy can be below validation accuracy because {'; '.join(reasons)}."


def _reasons(config: Mapping[str, Any]) -> list[str]:
    """What makes the training tasks of a run harder than its validation tasks."""
    training, learner, reasons = config["training"], config["learner"].get("name"), []
    ways, shots = (training.get(name) or 0 for name in ("ways", "shots"))
    validation_ways, validation_shots = (
        training.get(f"validation_{name}") or training.get(name) or 0 for name in ("ways", "shots")
    )
    if learner == "supervised":  # whose training has no tasks
        reasons.append("training tells all training classes apart at once")
    elif ways > validation_ways:
        reasons.append(f"tasks have {ways} ways in training, {validation_ways} in validation")
    learns_from_support = learner in learners and learners[learner].needs_queries
    if learns_from_support and 0 < shots < validation_shots:
        reasons.append(
            f"tasks have {shots} {'shot' if shots == 1 else 'shots'} in training, {validation_shots} in validation"
        )
    form = config["data"].get("normalization") or {}
    if training.get("augment") and form.get("augment", "none") != "none":
        reasons.append("training images are augmented")
    if any(np.any(np.asarray(value) > 0) for name, value in config["backbone"].items() if name.startswith("drop_rate")):
        reasons.append("dropout is active in training alone")
    return reasons
