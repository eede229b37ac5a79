"""Any image model of the `timm` library as a backbone (``pip install kshot[timm]``)."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType
from typing import ClassVar

import torch
from torch import Tensor

from kshot.backbones.registry import Backbone, backbones
from kshot.backbones.replacement import replace_batch_norm
from kshot.errors import ConfigError


@backbones.register("timm")
class Timm(Backbone):
    """A timm model without its classifier, its BatchNorm layers replaced by ours, which keep tasks apart.

    timm's own dropout draws from torch's global generator and not from the keys of tasks.

    Parameters
    ----------
    in_channels
        Channels of the images.
    model
        timm's name of the model, such as "resnet18" or "vit_tiny_patch16_224".
    image_size
        Side of the images in pixels. A model of fixed input size is built for this size.
    pretrained
        Start from timm's weights, which are downloaded, instead of random ones. Most of them have seen the classes of
        mini-ImageNet's and tiered-ImageNet's test splits.

    Raises
    ------
    ConfigError
        timm is missing or cannot be imported, does not know the model, or the model cannot take images of this size or
        keep tasks apart.
    """

    builds_small: ClassVar = {"model": "resnet10t"}

    def __init__(self, model: str, *, in_channels: int = 3, image_size: int = 84, pretrained: bool = False) -> None:
        super().__init__()
        timm = import_timm()
        if not timm.is_model(model):
            raise ConfigError(f"timm has no model {model!r}; timm.list_models('*part of the name*') lists them")
        fixed_size = getattr(timm.get_pretrained_cfg(model), "fixed_input_size", False)
        size = {"img_size": image_size} if fixed_size else {}
        self.network = timm.create_model(model, pretrained=pretrained, in_chans=in_channels, num_classes=0, **size)
        replace_batch_norm(self.network, f"timm's {model!r}")
        self.input_shape = (in_channels, image_size, image_size)
        self.feature_size = _feature_size(self.network, model, self.input_shape)

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W)."""
        return self.network(images)


def import_timm() -> ModuleType:
    """The timm library; ConfigError if it is missing or broken, with the command that mends it."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name == "timm":
            message = f"the backbone 'timm' needs the timm library: pip install kshot[timm] ({error})"
        elif error.name == "torchvision":
            message = (
                f"timm cannot be imported, since it lacks torchvision; {_torchvision_advice(torch.__version__, None)}"
            )
        else:
            message = f"timm cannot be imported, since it lacks {error.name}: pip install kshot[timm]"
        raise ConfigError(message) from error
    # a torchvision that was built for another torch ends in "operator torchvision::nms does not exist", a second import
    # in an error about a module that is half there
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"timm cannot be imported ({error}); {_torchvision_advice(torch.__version__, _version_of('torchvision'))}"
        ) from error


def _torchvision_advice(torch_version: str, torchvision_version: str | None) -> str:
    """Which torchvision goes with this torch: 0.21 with torch 2.6, 0.22 with 2.7 and so on, of the same build."""
    release, _, build = torch_version.partition("+")
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    fitting = f"'torchvision==0.{int(release.split('.')[1]) + 15}.*'{index}"
    if torchvision_version is None:
        return f"install the one for torch {torch_version}: pip install --no-deps {fitting}"
    return (
        f"the installed torchvision {torchvision_version} was most likely built for another torch than the installed "
        f"{torch_version}: pip install --force-reinstall --no-deps {fitting}"
    )


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@torch.no_grad()
def _feature_size(network: torch.nn.Module, model: str, shape: tuple[int, ...]) -> int:
    """D, from a pass of one image: timm's `num_features` leaves out the last layers of some models."""
    try:
        features = network.eval()(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"timm's {model!r} cannot take images of {shape[-1]} pixels: {error}") from error
    finally:
        network.train()
    return features.shape[1]
