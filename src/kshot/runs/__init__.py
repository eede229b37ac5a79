"""The run folder and its one owner."""

from kshot.runs.folder import RunFolder, load_learner, load_run
from kshot.runs.result import TrainingResult
from kshot.runs.run import Run
from kshot.runs.tables import table

__all__ = ["Run", "RunFolder", "TrainingResult", "load_learner", "load_run", "table"]
