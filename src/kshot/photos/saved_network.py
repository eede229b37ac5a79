"""The backbone of a saved classifier: a name, or the weights themselves, and a test that it is the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kshot.data.dataset import ImageForm, Normalization
from kshot.data.images import InputForm
from kshot.errors import ConfigError
from kshot.photos.container import damaged
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork, pretrained

_NETWORK = "network."  # before the names of the backbone's weights
_PROBE_TOLERANCE = 1e-2  # of the largest feature; another machine or ONNX Runtime rounds by less


def describe_network(network: PhotoNetwork) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a network can be built from again: JSON, and its weights unless a name stands for them.

    A network that kshot cannot build is described by its features of one image alone, so that another one is noticed.
    """
    about = {"trained_on": network.trained_on, "form": asdict(network.form), "key": getattr(network, "key", None)}
    tensors = {"probe": _probe(network)}
    if isinstance(network, PretrainedNetwork):
        own = network.weights is not None
        weights = network.tensors if own else {}
        about |= {"kind": "pretrained", "name": network.name, "own_weights": own}
    elif isinstance(network, LearnerNetwork) and "unregistered" not in _described(network.learner)["backbone"]:
        form = network.image_form
        image_form = {"dataset": form.dataset, "image_shape": form.image_shape, **asdict(form.normalization)}
        weights = network.learner.state_dict()
        about |= {"kind": "learner", "image_form": image_form, **_described(network.learner)}
    else:
        weights = {}
        about |= {"kind": "own"}
    return about, tensors | {_NETWORK + name: tensor for name, tensor in weights.items()}


def _described(learner: Any) -> dict[str, Any]:
    from kshot.runs.config import describe_learner  # with runs comes Matplotlib, which other networks need not wait for

    return describe_learner(learner)


def built_network(
    about: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str, given: PhotoNetwork | None
) -> PhotoNetwork:
    """The backbone of a saved classifier.

    Parameters
    ----------
    about, tensors
        What `describe_network` gave.
    path
        The file, for messages.
    given
        The network to use, which must give the features that the classifier was fitted to; None for the one that the
        file describes.

    Raises
    ------
    ConfigError
        If it is not installed, must be given, or gives other features.
    CheckpointError
        If the weights in the file do not fit.
    """
    network = _described_network(about, tensors, path) if given is None else given
    if about["key"] is not None and getattr(network, "key", None) == about["key"]:
        return network
    expected, found = tensors["probe"], _probe(network)
    if found.shape != expected.shape or (found - expected).abs().max() > _PROBE_TOLERANCE * expected.abs().max():
        raise ConfigError(
            f"{path} was fitted to features by {about['trained_on']}, but {network.trained_on} gives others here: the "
            "weights are another version; install the version that it was fitted with, or fit it again"
        )
    return network


def _described_network(about: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str) -> PhotoNetwork:
    weights = {name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items() if name.startswith(_NETWORK)}
    if about["kind"] == "own":
        raise ConfigError(
            f"{path} was fitted to features by {about['trained_on']}, a network of your own that the file cannot hold: "
            "FewShotClassifier.load(path, backbone=network)"
        )
    if about["kind"] == "pretrained":
        if not about["own_weights"]:
            return pretrained(about["name"])
        network = PretrainedNetwork(about["name"], weights=weights)
        network.form = InputForm(**{name: _tuples(value) for name, value in about["form"].items()})
        return network
    from kshot.runs.config import build_learner  # see `_described`

    learner = build_learner(about, download=False)
    try:
        learner.load_state_dict(weights)
    except RuntimeError as error:
        raise damaged(path, " ".join(str(error).split())) from error
    stated = about["image_form"]
    normalization = Normalization(tuple(stated["mean"]), tuple(stated["std"]), stated["augment"])
    return LearnerNetwork(learner.eval(), ImageForm(stated["dataset"], tuple(stated["image_shape"]), normalization))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _probe(network: PhotoNetwork) -> Tensor:
    """The features (1, D) of an image of waves, which tell one network from another."""
    size, channels = network.form.image_size, len(network.form.mean)
    steps = torch.linspace(0, 20, size)
    waves = torch.stack([torch.sin(steps * (1 + channel) / 2) for channel in range(channels)])
    return network((waves[:, None, :] * waves[:, :, None] * 2)[None]).float().cpu()
