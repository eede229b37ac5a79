"""Training: one loop for every learner."""

from kshot.runs.result import TrainingResult
from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train

__all__ = ["TrainingInterrupted", "TrainingResult", "train"]
