"""Training: one loop for every learner."""

from kshot.runs.result import TrainingResult
from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train
from kshot.training.options import TrainingOptions

__all__ = ["TrainingInterrupted", "TrainingOptions", "TrainingResult", "train"]
