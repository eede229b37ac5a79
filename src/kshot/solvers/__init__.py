"""Inner problems, batched over tasks: support features (B, S, D) and labels (B, S) in, a `LinearHead` out.

>>> head = logistic_regression(support_features, support_labels, ways=5, c=3.0)
>>> probabilities = head.scores(query_features).softmax(-1)

`adaptations` maps the names that the command line knows to classes that apply a solver to a learner's features. A new
adaptation is one file here and one row in the imports below, which registers it.
"""

from kshot.solvers.adaptation import Adaptation, HeadAdaptation, adaptations
from kshot.solvers.alpha_tim import AlphaTIM
from kshot.solvers.attention import Attention, FullContext
from kshot.solvers.baseline_plus_plus import BaselinePlusPlus
from kshot.solvers.bd_cspn import BDCSPN
from kshot.solvers.cache import Cache
from kshot.solvers.fine_tune import FineTune
from kshot.solvers.gradient_steps import GradientDescent
from kshot.solvers.heads import Head, LinearHead
from kshot.solvers.label_propagation import LabelPropagation
from kshot.solvers.laplacian_shot import LaplacianShot
from kshot.solvers.logistic import LogisticRegression, logistic_regression
from kshot.solvers.power import PowerCentroid
from kshot.solvers.prototypes import Cosine, NearestCentroid, cosine, nearest_centroid
from kshot.solvers.pt_map import PTMAP
from kshot.solvers.ridge import Ridge, ridge
from kshot.solvers.scaled import LearntRidge, ScaledHead
from kshot.solvers.simpleshot import CentredCentroid
from kshot.solvers.svm import SupportVectorMachine, svm
from kshot.solvers.tim import TIM
from kshot.solvers.transductive import TransductiveAdaptation
from kshot.solvers.transductive_fine_tune import TransductiveFineTune
from kshot.solvers.tune_all import TuneAll

__all__ = [
    "BDCSPN",
    "PTMAP",
    "TIM",
    "Adaptation",
    "AlphaTIM",
    "Attention",
    "BaselinePlusPlus",
    "Cache",
    "CentredCentroid",
    "Cosine",
    "FineTune",
    "FullContext",
    "GradientDescent",
    "Head",
    "HeadAdaptation",
    "LabelPropagation",
    "LaplacianShot",
    "LearntRidge",
    "LinearHead",
    "LogisticRegression",
    "NearestCentroid",
    "PowerCentroid",
    "Ridge",
    "ScaledHead",
    "SupportVectorMachine",
    "TransductiveAdaptation",
    "TransductiveFineTune",
    "TuneAll",
    "adaptations",
    "cosine",
    "logistic_regression",
    "nearest_centroid",
    "ridge",
    "svm",
]
