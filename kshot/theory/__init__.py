"""The theory that ties multi-task and meta-learning, computable; ``experiments`` maps names to experiments.

Wang, Zhao and Li (ICML 2021), "W21" below, and Zhou et al. (UAI 2021), "Z21".
"""

from kshot.theory.closeness_depth import ClosenessDepth
from kshot.theory.closeness_inner_loop import ClosenessInnerLoop
from kshot.theory.empirical import empirical_kernels
from kshot.theory.excess_risk import ExcessRisk
from kshot.theory.experiment import Experiment, Findings, experiments
from kshot.theory.finite_training import Trained, train_anil, train_mtl
from kshot.theory.finite_width import FiniteWidth
from kshot.theory.kernels import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import ConditionWarning, Prediction, adapt_head, predict_anil, predict_mtl
from kshot.theory.spectrum import Spectrum
from kshot.theory.statistics import PowerLaw, fit_power_law, mean_and_ci95
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks
from kshot.theory.taxonomy import Taxonomy

__all__ = [
    "ClosenessDepth",
    "ClosenessInnerLoop",
    "ConditionWarning",
    "ExcessRisk",
    "Experiment",
    "Findings",
    "FiniteWidth",
    "Kernels",
    "PowerLaw",
    "Prediction",
    "ReLUNetwork",
    "RegressionTasks",
    "Spectrum",
    "Taxonomy",
    "Trained",
    "adapt_head",
    "empirical_kernels",
    "experiments",
    "fit_power_law",
    "kernels",
    "mean_and_ci95",
    "predict_anil",
    "predict_mtl",
    "squared_distance_tasks",
    "train_anil",
    "train_mtl",
]
