"""Any image model of the `timm` library as a backbone (``pip install kshot[timm]``)."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor, nn

from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import Backbone, backbones
from kshot.errors import ConfigError


@backbones.register("timm")
class Timm(Backbone):
    """A timm model without its classifier, its BatchNorm layers replaced by ours, which keep tasks apart.

    Parameters
    ----------
    model : timm's name of it, such as "resnet18" or "vit_tiny_patch16_224".
    in_channels, image_size : of the images. A model of fixed input size is built for this size.
    pretrained : start from timm's weights, which are downloaded, instead of random ones. Most of them have seen the
        classes of mini-ImageNet's and tiered-ImageNet's test splits.

    Raises ConfigError where timm is missing, does not know the model, or the model cannot take images of this size or
    keep tasks apart. timm's own dropout draws from torch's global generator and not from the keys of tasks.
    """

    def __init__(self, model: str, in_channels: int = 3, image_size: int = 84, pretrained: bool = False) -> None:
        super().__init__()
        timm = _import_timm()
        if not timm.is_model(model):
            raise ConfigError(f"timm has no model {model!r}; timm.list_models('*part of the name*') lists them")
        fixed_size = getattr(timm.get_pretrained_cfg(model), "fixed_input_size", False)
        size = {"img_size": image_size} if fixed_size else {}
        self.network = timm.create_model(model, pretrained=pretrained, in_chans=in_channels, num_classes=0, **size)
        _keep_tasks_apart(self.network, model)
        self.feature_size = _feature_size(self.network, model, (in_channels, image_size, image_size))

    def forward(self, images: Tensor) -> Tensor:
        """(M, C, H, W) to (M, feature_size)."""
        return self.network(images)


class BatchNormActivation2d(BatchNorm2d):
    """The counterpart of timm's BatchNormAct2d: BatchNorm, then dropout, then the activation."""

    def __init__(self, replaced: nn.BatchNorm2d) -> None:
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum, replaced.affine)
        self.drop, self.act = replaced.get_submodule("drop"), replaced.get_submodule("act")

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B*M, C, H, W) over M, H and W for each task, and activate."""
        return self.act(self.drop(super().forward(images)))


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(f"the backbone 'timm' needs the timm library: pip install kshot[timm] ({error})") from error


def _keep_tasks_apart(network: nn.Module, model: str) -> None:
    """Replace every BatchNorm of `network` by ours, with the same weights under the same name."""
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        ours: BatchNorm2d
        if type(layer) is nn.BatchNorm2d:
            ours = BatchNorm2d(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        elif isinstance(layer, nn.BatchNorm2d) and {"act", "drop"} <= dict(layer.named_children()).keys():
            ours = BatchNormActivation2d(layer)
        else:
            raise ConfigError(
                f"timm's {model!r} normalises batches by {type(layer).__name__} ({name}), which would mix tasks that "
                "go through in one pass; choose a model with BatchNorm2d or without batch normalisation"
            )
        ours.load_state_dict(layer.state_dict())
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, ours)


@torch.no_grad()
def _feature_size(network: nn.Module, model: str, shape: tuple[int, int, int]) -> int:
    """D, from a pass of one image: timm's `num_features` leaves out the last layers of some models."""
    try:
        features = network.eval()(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"timm's {model!r} cannot take images of {shape[-1]} pixels: {error}") from error
    finally:
        network.train()
    return features.shape[1]
