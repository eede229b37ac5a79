"""Finds out by passes whether the feature of an image depends on images that it must not depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kshot.backbones.task_batch import batch_of_tasks
from kshot.errors import ConfigError

_ROUNDING = 1e-3  # of the spread of features over images, up to which two features count as equal


@torch.no_grad()
def check_independence(network: nn.Module, images: Tensor, described: str) -> None:
    """Refuse a network that mixes images, or tasks, or draws random numbers in evaluation.

    Five passes in evaluation and three in training, on images that differ in part. The network is left as it was, its
    buffers and modes included, and so are torch's generators.

    Parameters
    ----------
    network
        Takes images (M, ...) and returns features (M, D).
    images
        (M, ...) with an even M of at least 4, from which other images are made.
    described
        What messages call the network.

    Raises
    ------
    ConfigError
        The feature of an image changes with the other images of the batch or from pass to pass in evaluation, or, in
        training, with the images of another task.
    """
    half = len(images) // 2
    # an average over the batch is moved by images far away, and attention to the nearest images by similar ones
    others = [torch.cat([images[:half], changed]) for changed in (3 * images[half:] + 2, 1.3 * images[:half])]
    network_as = _Probe(network)
    features = network_as(images, training=False)
    if not _equal(network_as(images, training=False, seed=1), features):
        raise ConfigError(
            f"{described} gives other features for the same images in a second pass in evaluation mode; whatever draws "
            "random numbers or counts passes must stop in evaluation mode (self.training is False)"
        )
    batches = [images[:half], *others]
    if not all(_equal(network_as(batch, training=False)[:half], features[:half]) for batch in batches):
        raise ConfigError(
            f"in evaluation mode the features that {described} gives for an image change with the other images of the "
            "batch; replace the layer that computes over the batch by one that looks at single images, such as "
            "GroupNorm"
        )
    features = network_as(images, training=True)
    if not all(_equal(network_as(batch, training=True)[:half], features[:half]) for batch in others):
        raise ConfigError(
            f"in training mode the features that {described} gives for the images of a task change with the images of "
            "other tasks in the same pass; replace the layer that computes over the batch by torch's BatchNorm, which "
            "kshot replaces by its own, or by one that looks at single images, such as GroupNorm"
        )


class _Probe:
    """Passes through a network that leave no trace: two tasks in training, a plain batch in evaluation."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, images: Tensor, *, training: bool, seed: int = 0) -> Tensor:
        devices = [images.device] if images.device.type == "cuda" else []
        with _untouched(self.network), torch.random.fork_rng(devices), batch_of_tasks(2 if training else 1):
            torch.manual_seed(seed)
            return self.network.train(training)(images)


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """Put buffers and modes back at the end."""
    modes = [(layer, layer.training) for layer in network.modules()]
    buffers = [
        (layer, name, buffer, buffer.clone())
        for layer in network.modules()
        for name, buffer in layer.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
        for layer, name, buffer, content in buffers:
            buffer.copy_(content)
            layer._buffers[name] = buffer


def _equal(features: Tensor, expected: Tensor) -> bool:
    wide = expected.double()
    spread = (wide - wide.mean(0)).abs().max()
    tolerance = _ROUNDING * spread + 1e-5 * wide.abs().max()
    return bool(((features.double() - wide).abs() <= tolerance).all())
