"""The backbones by name, and what all of them have in common."""

from __future__ import annotations

from torch import nn

from kshot.registry import Registry


class Backbone(nn.Module):
    """Turns images (M, in_channels, image_size, image_size) into features (M, feature_size).

    Every backbone takes `in_channels` and `image_size` as constructor arguments, which `kshot train` fills from the
    data.
    """

    feature_size: int


backbones: Registry[Backbone] = Registry("backbone")
