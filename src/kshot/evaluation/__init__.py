"""The protocol: the same tasks for every learner, intervals, paired comparison."""

from kshot.evaluation.features import extract_features
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Difference, Evaluation, Protocol, compare, over_seeds

__all__ = ["Difference", "Evaluation", "Protocol", "compare", "evaluate", "extract_features", "over_seeds"]
