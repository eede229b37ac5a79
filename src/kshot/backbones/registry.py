"""The backbones by name, and what all of them have in common."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kshot.backbones.normalization import KeepsTasksApart
from kshot.errors import ConfigError
from kshot.registry import Registry


class Backbone(nn.Module):
    """Turns images (M, in_channels, image_size, image_size) into features (M, feature_size).

    Every registered backbone takes `in_channels` and `image_size` as constructor arguments, which `kshot train` fills
    from the data; ``kshot.testing.check_backbone`` checks what is promised here. `kshot.backbone` makes a backbone of
    any other module.

    Attributes
    ----------
    feature_size
        D, the number of features per image.
    input_shape
        (C, H, W) of the images that it was built for; None if it takes images of several shapes.
    threads_at_once
        Whether several threads may call it at the same time. False if it draws random numbers other than by kshot's own
        dropout layers, or writes to itself in a forward pass other than by kshot's own BatchNorm layers.
    builds_small
        Options under which the tests of the contract build it, so that they are quick.
    """

    feature_size: int
    input_shape: tuple[int, ...] | None = None
    threads_at_once: bool = False
    builds_small: ClassVar[Mapping[str, Any]] = {}

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.parameters())
        images = "" if self.input_shape is None else f"{' x '.join(map(str, self.input_shape))} -> "
        return f"{self.constructor_call()}: {images}{self.feature_size:,} features, {size:,} parameters"

    def constructor_call(self) -> str:
        """The class with the options that are not the defaults."""
        defaults = inspect.signature(type(self)).parameters
        options: Mapping[str, Any] = getattr(self, "options", {})
        shown = [
            f"{name}={value!r}"
            for name, value in options.items()
            if name not in defaults or value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


backbones: Registry[Backbone] = Registry("backbone")


def require_backbone(learner: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a learner's argument `backbone` that is no `Backbone`, or whose layers would mix tasks.

    Parameters
    ----------
    learner
        The name of the learner's class.
    arguments
        The arguments of its constructor by name.

    Raises
    ------
    ConfigError
        With the call of `kshot.backbone` that makes a backbone of the module.
    """
    if "backbone" not in arguments:
        return
    backbone = arguments["backbone"]
    name = type(backbone).__name__
    make = "kshot.backbone(module, in_channels=..., image_size=...)"
    if isinstance(backbone, nn.Module) and not isinstance(backbone, Backbone):
        raise ConfigError(f"{learner} takes a backbone, but {name} is another module; make it one by {make}")
    if not isinstance(backbone, Backbone):
        raise ConfigError(
            f"{learner} takes a backbone, but got {backbone!r}; give an instance of one of: {', '.join(backbones)}, or "
            f"make one of your own module by {make}"
        )
    for place, layer in backbone.named_modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, KeepsTasksApart):
            raise ConfigError(
                f"the layer {place} of the backbone {name} is torch's {type(layer).__name__}, which mixes the tasks "
                f"that go through in one pass; build it from kshot.backbones.BatchNorm2d, or use {make}"
            )


def is_compiled(network: nn.Module) -> bool:
    """Whether the network or a part of it was compiled by torch.compile."""
    return any(layer._compiled_call_impl is not None for layer in network.modules())
