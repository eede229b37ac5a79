"""The run folder and its one owner."""

from kshot.runs.measurement import Measurement
from kshot.runs.result import TrainingResult
from kshot.runs.run import Run
from kshot.runs.tables import table

__all__ = ["Measurement", "Run", "TrainingResult", "table"]
