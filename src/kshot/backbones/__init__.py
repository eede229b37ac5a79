"""Backbones turn images (M, C, H, W) into features (M, D), and know where one task ends and the next begins."""

from kshot.backbones.bottleneck import BottleneckResNet50
from kshot.backbones.conv4 import Conv4
from kshot.backbones.dropout import DropBlock, Dropout
from kshot.backbones.efficientnet_lite import EfficientNetLite0, EfficientNetLite1, EfficientNetLite2
from kshot.backbones.mlp import MLP
from kshot.backbones.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from kshot.backbones.own_module import ModuleBackbone, backbone
from kshot.backbones.r2d2 import R2D2Network
from kshot.backbones.registry import Backbone
from kshot.backbones.registry import backbones as backbones
from kshot.backbones.resnet import ResNet12, ResNet18, ResNet24, ResNet50, SEResNet12
from kshot.backbones.task_batch import batch_of_tasks
from kshot.backbones.timm_adapter import Timm
from kshot.backbones.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "Backbone",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BottleneckResNet50",
    "Conv4",
    "DropBlock",
    "Dropout",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "ModuleBackbone",
    "R2D2Network",
    "ResNet12",
    "ResNet18",
    "ResNet24",
    "ResNet50",
    "SEResNet12",
    "Timm",
    "WideResNet",
    "backbone",
    "batch_of_tasks",
]
