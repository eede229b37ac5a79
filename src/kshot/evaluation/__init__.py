"""The protocol: the same tasks for every learner, intervals, paired comparison."""

from kshot.evaluation.features import extract_features
from kshot.evaluation.fit import check_images
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Difference, Evaluation, Protocol, compare, over_seeds
from kshot.evaluation.task_loop import for_tasks

__all__ = [
    "Difference",
    "Evaluation",
    "Protocol",
    "check_images",
    "compare",
    "evaluate",
    "extract_features",
    "for_tasks",
    "over_seeds",
]
