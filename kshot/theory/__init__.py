"""The theory that ties multi-task and meta-learning, computable; ``experiments`` maps names to experiments.

Wang, Zhao and Li (ICML 2021), "W21" below, and Zhou et al. (UAI 2021), "Z21".
"""

from kshot.theory.excess_risk import ExcessRisk
from kshot.theory.experiment import Experiment, Findings, experiments
from kshot.theory.statistics import PowerLaw, fit_power_law, mean_and_ci95

__all__ = ["ExcessRisk", "Experiment", "Findings", "PowerLaw", "experiments", "fit_power_law", "mean_and_ci95"]
