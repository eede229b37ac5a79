"""Inner problems, batched over tasks: support features (B, S, D) and labels (B, S) in, a `LinearHead` out.

>>> head = logistic_regression(support_features, support_labels, ways=5, c=3.0)
>>> probabilities = head.scores(query_features).softmax(-1)

`adaptations` maps the names that the command line knows to classes that apply a solver to a learner's features. A new
adaptation is one file here and one row in the imports below, which registers it.
"""

from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations
from kshot.solvers.attention import Attention, FullContext
from kshot.solvers.heads import Head, LinearHead
from kshot.solvers.logistic import LogisticRegression, logistic_regression
from kshot.solvers.prototypes import Cosine, NearestCentroid, cosine, nearest_centroid
from kshot.solvers.ridge import Ridge, ridge
from kshot.solvers.scaled import LearntRidge, ScaledHead
from kshot.solvers.svm import SupportVectorMachine, svm
from kshot.solvers.tune_all import TuneAll

__all__ = [
    "Adaptation",
    "Attention",
    "Cosine",
    "FullContext",
    "Head",
    "HeadAdaptation",
    "LearntRidge",
    "LinearHead",
    "LogisticRegression",
    "NearestCentroid",
    "Ridge",
    "ScaledHead",
    "SupportVectorMachine",
    "TuneAll",
    "adaptations",
    "cosine",
    "logistic_regression",
    "nearest_centroid",
    "ridge",
    "svm",
]
