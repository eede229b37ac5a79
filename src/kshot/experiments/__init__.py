"""Experiments run learners or kernels and return findings; ``experiments`` maps the names of `kshot theory` to them."""

from kshot.experiments.closeness_depth import ClosenessDepth
from kshot.experiments.closeness_inner_loop import ClosenessInnerLoop
from kshot.experiments.excess_risk import ExcessRisk
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.experiments.finite_training import Trained, stable_rate, train_anil, train_mtl
from kshot.experiments.finite_width import FiniteWidth
from kshot.experiments.initializations import Initializations, MetaTraining, maml, tsa_maml
from kshot.experiments.spectrum import Spectrum
from kshot.experiments.taxonomy import Taxonomy

__all__ = [
    "ClosenessDepth",
    "ClosenessInnerLoop",
    "ExcessRisk",
    "Experiment",
    "Findings",
    "FiniteWidth",
    "Initializations",
    "MetaTraining",
    "Spectrum",
    "Taxonomy",
    "Trained",
    "experiments",
    "maml",
    "stable_rate",
    "train_anil",
    "train_mtl",
    "tsa_maml",
]
