"""The mathematics that ties multi-task and meta-learning: kernels, predictors, bounds.

Wang, Zhao and Li (ICML 2021), "W21" below, and Zhou et al. (UAI 2021), "Z21".
"""

from kshot.theory.empirical import empirical_kernels
from kshot.theory.finite_training import Trained, train_anil, train_mtl
from kshot.theory.kernels import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import ConditionWarning, Prediction, adapt_head, predict_anil, predict_mtl
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks

__all__ = [
    "ConditionWarning",
    "Kernels",
    "Prediction",
    "ReLUNetwork",
    "RegressionTasks",
    "Trained",
    "adapt_head",
    "empirical_kernels",
    "kernels",
    "predict_anil",
    "predict_mtl",
    "squared_distance_tasks",
    "train_anil",
    "train_mtl",
]
