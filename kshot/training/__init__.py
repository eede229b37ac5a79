"""Training: one loop for every learner, runs that survive a kill, and their way back from the disk."""

from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train
from kshot.training.result import TrainingResult
from kshot.training.runs import load_learner, load_run

__all__ = ["TrainingInterrupted", "TrainingResult", "load_learner", "load_run", "train"]
