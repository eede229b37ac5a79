"""kshot trains and compares few-shot learners on one protocol.

Names are imported when they are first used, so that ``kshot --help`` need not wait for torch:

>>> import kshot
>>> data = kshot.load("glyphs")
>>> learner = kshot.MultiTask(kshot.Conv4(64, in_channels=1), num_classes=data.train.num_classes)
>>> kshot.train(learner, data, ways=5, shots=5, max_epochs=10, seed=0)
>>> result = kshot.evaluate(learner, data.test, ways=5, shots=5, queries=15, tasks=2000, seed=0)
>>> result.mean, result.ci95, result.accuracies
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "kshot.data": ["load", "prepare", "verify", "Dataset", "Split", "EpisodeSampler", "Episodes", "TaskShape"],
    "kshot.backbones": [
        "MLP",
        "Conv4",
        "R2D2Network",
        "ResNet12",
        "ResNet18",
        "ResNet24",
        "ResNet50",
        "Timm",
        "WideResNet",
    ],
    "kshot.learners": [
        "ANIL",
        "HSML",
        "IMAML",
        "MAML",
        "MMAML",
        "R2D2",
        "TADAM",
        "TSAMAML",
        "FeatureLearner",
        "InitializationLearner",
        "Learner",
        "MatchingNet",
        "MetaLSTM",
        "MetaOptNet",
        "MinibatchProx",
        "MultiTask",
        "ProtoNet",
        "Reptile",
        "Supervised",
    ],
    "kshot.solvers": ["adaptations"],
    "kshot.evaluation": ["Evaluation", "compare", "evaluate", "extract_features", "over_seeds"],
    "kshot.runs": ["load_learner", "load_run"],
    "kshot.training": ["TrainingResult", "train"],
    "kshot.tsa": ["Stages", "train_tsa_maml"],
    "kshot.photos": ["PhotoClassifier"],
    "kshot.errors": ["KshotError"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_PACKAGES = ["backbones", "learners", "recipes", "report", "solvers", "theory"]

__all__ = [*_HOME, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kshot")
    if name in _PACKAGES:
        return import_module(f"kshot.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
