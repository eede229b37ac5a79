"""The stages of TSA-MAML: pretraining, task solutions, clustering, groups."""

from kshot.tsa.stages import StageFolder, Stages
from kshot.tsa.train import GroupTraining, train_tsa_maml

__all__ = ["GroupTraining", "StageFolder", "Stages", "train_tsa_maml"]
