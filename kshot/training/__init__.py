"""Training: one loop for every learner, runs that survive a kill, and their way back from the disk."""

from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import TrainingResult, train
from kshot.training.runs import load_learner, load_run

__all__ = ["TrainingInterrupted", "TrainingResult", "load_learner", "load_run", "train"]
