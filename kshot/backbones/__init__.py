"""Backbones turn images (M, C, H, W) into features (M, D), and know where one task ends and the next begins."""

from kshot.backbones.conv4 import Conv4
from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.backbones.task_batch import batch_of_tasks

__all__ = ["Backbone", "BatchNorm2d", "Conv4", "backbones", "batch_of_tasks"]
