"""The mathematics that ties multi-task and meta-learning: kernels, predictors, bounds, and the common objective.

Wang, Zhao and Li (ICML 2021) are "W21" here, Zhou et al. (UAI 2021) "Z21". Nothing in this room trains a network or
runs a learner; the experiments on these statements are in `kshot.experiments`.
"""

from kshot.theory.bounds import Bounds
from kshot.theory.empirical import empirical_kernels
from kshot.theory.infinite_width import Kernels, kernels
from kshot.theory.last_layer import EarlyStopping, Joint, Penalty, Regularizer, objective
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import ConditionWarning, KernelPrediction, adapt_head, predict_anil, predict_mtl
from kshot.theory.task_mixture import Linear, Logistic, MixtureTasks, TaskMixture
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks

__all__ = [
    "Bounds",
    "ConditionWarning",
    "EarlyStopping",
    "Joint",
    "KernelPrediction",
    "Kernels",
    "Linear",
    "Logistic",
    "MixtureTasks",
    "Penalty",
    "ReLUNetwork",
    "RegressionTasks",
    "Regularizer",
    "TaskMixture",
    "adapt_head",
    "empirical_kernels",
    "kernels",
    "objective",
    "predict_anil",
    "predict_mtl",
    "squared_distance_tasks",
]
