"""Puts kshot's own BatchNorm layers in the place of torch's, in networks that others have built."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kshot.backbones.normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d, KeepsTasksApart
from kshot.errors import ConfigError

_OURS: dict[type[nn.Module], type[BatchNorm2d]] = {
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.BatchNorm3d: BatchNorm3d,
}


class BatchNormActivation2d(BatchNorm2d):
    """The counterpart of timm's BatchNormAct2d: BatchNorm, then dropout, then the activation."""

    def __init__(self, replaced: nn.BatchNorm2d) -> None:
        super().__init__(**_settings(replaced))
        self.drop, self.act = replaced.get_submodule("drop"), replaced.get_submodule("act")

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B*M, C, H, W) over M, H and W for each task, and activate."""
        return self.act(self.drop(super().forward(images)))


def replace_batch_norm(network: nn.Module, described: str) -> None:
    """Replace every BatchNorm of `network` by ours, with the same weights under the same name.

    The new layers hold the very parameters of the old ones. A layer without running statistics
    (``track_running_stats=False``) gets some, from mean 0 and variance 1: without them, the feature of an image would
    depend on the other images of the batch in evaluation, too.

    Parameters
    ----------
    network
        Contains the layers; is itself none of them.
    described
        What messages call the network.

    Raises
    ------
    ConfigError
        A layer normalises batches in a way that cannot be replaced; no layer has been replaced then.
    """
    places = [
        (name, layer)
        for name, layer in network.named_modules(remove_duplicate=False)
        if isinstance(layer, _BatchNorm) and not isinstance(layer, KeepsTasksApart)
    ]
    # a layer that is used in several places stays one layer
    ours = {id(layer): _counterpart(layer, name, described) for name, layer in places}
    for name, layer in places:
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, ours[id(layer)])


def _settings(layer: _BatchNorm) -> dict[str, Any]:
    """The arguments that a layer was built with, except for `track_running_stats`."""
    return {name: getattr(layer, name) for name in ("num_features", "eps", "momentum", "affine")}


def _counterpart(layer: _BatchNorm, name: str, described: str) -> BatchNorm2d:
    counterpart: BatchNorm2d
    if type(layer) in _OURS:
        counterpart = _OURS[type(layer)](**_settings(layer))
    elif isinstance(layer, nn.BatchNorm2d) and {"act", "drop"} <= dict(layer.named_children()).keys():
        counterpart = BatchNormActivation2d(layer)
    else:
        raise ConfigError(
            f"{described} normalises batches by {type(layer).__name__} ({name}), which would mix tasks that go through "
            "in one pass; use BatchNorm1d, BatchNorm2d or BatchNorm3d of torch, which kshot replaces, or a "
            "normalisation without batch statistics, such as GroupNorm"
        )
    if layer.affine:
        counterpart.weight, counterpart.bias = layer.weight, layer.bias
        counterpart.to(layer.weight.device)
    if layer.track_running_stats:
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(counterpart, buffer, getattr(layer, buffer))
    else:
        counterpart.to(dtype=layer.weight.dtype if layer.affine else None)
    return counterpart.train(layer.training)
