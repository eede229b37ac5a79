"""The backbones by name, and what all of them have in common."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from kshot.registry import Registry


class Backbone(nn.Module):
    """Turns images (M, in_channels, image_size, image_size) into features (M, feature_size).

    Every backbone takes `in_channels` and `image_size` as constructor arguments, which `kshot train` fills from the
    data.

    threads_at_once: whether several threads may call it at the same time. Not where it draws random numbers other than
        by kshot's own dropout layers, or writes what it keeps other than by kshot's own BatchNorm2d.
    """

    feature_size: int
    threads_at_once: ClassVar[bool] = False


backbones: Registry[Backbone] = Registry("backbone")


def is_compiled(network: nn.Module) -> bool:
    """Whether the network or a part of it was compiled by torch.compile."""
    return any(layer._compiled_call_impl is not None for layer in network.modules())
