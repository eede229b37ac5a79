"""Training: one loop for every learner."""

from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train
from kshot.training.result import TrainingResult

__all__ = ["TrainingInterrupted", "TrainingResult", "train"]
