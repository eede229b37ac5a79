"""A paper's table by one command: grids of cells, the engines that run them, and pages of their numbers."""

from kshot.studies.engines import EngineOptions
from kshot.studies.plan import Plan
from kshot.studies.simulation import Simulation
from kshot.studies.study import Status, Study
from kshot.studies.study_file import names

__all__ = ["EngineOptions", "Plan", "Simulation", "Status", "Study", "names"]
