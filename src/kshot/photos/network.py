"""The network of a photo classifier: image files in, features out, as fast as the machine at hand allows."""

from __future__ import annotations

import copy
import importlib.util
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from tqdm import tqdm

from kshot.backbones.efficientnet_lite import EfficientNetLite
from kshot.backbones.registry import backbones
from kshot.data.augmentation import normalize
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.images import InputForm, ValueRange, read_images, shown_at
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import FeatureLearner, Learner, learners
from kshot.solvers import HeadAdaptation

Features = Callable[[Tensor], Tensor]  # images (M, C, H, W), normalised, to (M, D)

_PIXELS_AT_ONCE = 16 * 224 * 224


class PhotoNetwork(Protocol):
    """What turns photographs into features: its `form` says how the photographs have to look."""

    form: InputForm
    trained_on: str

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) of normalised images (M, C, H, W)."""
        ...


class PretrainedNetwork:
    """A backbone with published weights; its features have unit length.

    Parameters
    ----------
    name
        A registered backbone that has published weights, such as "efficientnet-lite0".

    Raises
    ------
    ConfigError
        If there is no such backbone, it has no published weights, or they are not installed.
    """

    def __init__(self, name: str) -> None:
        kind = backbones[name]
        if not issubclass(kind, EfficientNetLite):
            suitable = [name for name, kind in backbones.items() if issubclass(kind, EfficientNetLite)]
            raise ConfigError(
                f"the backbone {name!r} has no weights to start from; choose one of: {', '.join(suitable)}"
            )
        self.form, self.trained_on = kind.pretrained_form, f"{name}, trained on ImageNet"
        self._features = fast_on_cpu(kind(image_size=self.form.image_size, pretrained=True).eval())

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, 1280) of unit length, of normalised images (M, 3, H, W)."""
        return nn.functional.normalize(self._features(images), dim=1)


class LearnerNetwork:
    """The backbone of a trained learner, with the features that the learner itself would use.

    Parameters
    ----------
    learner
        A feature learner, on any device.
    form
        How its images look.

    Raises
    ------
    ConfigError
        If the learner has no features, or an adaptation that changes the network.
    """

    def __init__(self, learner: Learner, form: ImageForm) -> None:
        if not isinstance(learner, FeatureLearner) or not isinstance(learner.adaptation, HeadAdaptation):
            suitable = sorted(name for name, kind in learners.items() if issubclass(kind, FeatureLearner))
            raise ConfigError(
                f"{type(learner).__name__} learns a task by changing its network; photographs are classified with a "
                f"feature learner: choose a run of one of these: {', '.join(suitable)}"
            )
        size = form.image_shape[1]
        self.form = InputForm(size, form.normalization.mean, form.normalization.std, resize=size)
        self.trained_on = f"{type(learner).__name__}, trained on {form.dataset}"
        self.adaptation: HeadAdaptation = learner.adaptation
        self._learner = learner

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) of normalised images (M, C, H, W)."""
        with evaluating(self._learner, "float32"):
            return self._learner.features(images.to(device_of(self._learner))).cpu()


@torch.no_grad()
def photo_features(
    network: PhotoNetwork, images: Sequence[Any], *, value_range: ValueRange | None = None, progress: bool = False
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Features (M, D), and the images as the network saw them, (M, H, W, C) uint8.

    Parameters
    ----------
    network
        Makes the features.
    images
        Image files, or images: of Pillow, or arrays (H, W) or (H, W, C) uint8.
    value_range
        The values that become black and white in images of more than 8 bits; None for those of each image alone.
    progress
        Show a bar on the terminal.

    Raises
    ------
    DataError
        If a file is no image.
    """
    form = network.form
    normalization = Normalization(form.mean, form.std)
    at_once = max(1, min(256, _PIXELS_AT_ONCE // form.image_size**2))
    features, seen = [], []
    with tqdm(total=len(images), unit="photo", desc="photographs", disable=not progress, delay=2) as bar:
        for start in range(0, len(images), at_once):
            seen.append(_pixels(images[start : start + at_once], form, value_range))
            features.append(network(normalize(torch.from_numpy(seen[-1]), normalization)))
            bar.update(len(seen[-1]))
    return torch.cat(features), np.concatenate(seen)


def _pixels(images: Sequence[Any], form: InputForm, value_range: ValueRange | None) -> NDArray[np.uint8]:
    channels = len(form.mean)
    if isinstance(images[0], (str, Path)):
        return read_images(
            [Path(str(path)) for path in images],
            form.image_size,
            channels=channels,
            value_range=value_range,
            resize=form.resize,
        )
    opened = [image if isinstance(image, Image.Image) else Image.fromarray(np.squeeze(image)) for image in images]
    return np.stack(
        [
            shown_at(image, form.image_size, channels=channels, value_range=value_range, resize=form.resize)
            for image in opened
        ]
    )


def fast_on_cpu(network: EfficientNetLite) -> Features:
    """The network's features by ONNX Runtime if it is installed, else by a folded network, within 1e-4 of its own.

    Measured by benchmarks/photos.py: ONNX Runtime takes a third of the time of PyTorch, and the folded network, its
    maps stored by pixel, seven tenths. bfloat16 would be as fast as ONNX Runtime, but moves features by a tenth.
    """
    folded = folded_batch_norm(network)
    if all(importlib.util.find_spec(package) for package in ("onnx", "onnxruntime")):
        return by_onnx_runtime(folded)
    for layer in folded.parameters():
        layer.data = layer.data.contiguous(memory_format=torch.channels_last) if layer.dim() == 4 else layer.data
    return folded


def folded_batch_norm(network: EfficientNetLite) -> EfficientNetLite:
    """A copy whose convolutions do what the BatchNorm layers behind them did in evaluation."""
    folded = copy.deepcopy(network).eval()
    for block in folded.modules():
        for convolution, normalization in (
            ("_conv_stem", "_bn0"),
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
            ("_conv_head", "_bn1"),
        ):
            layer, norm = getattr(block, convolution, None), getattr(block, normalization, None)
            if layer is not None and norm is not None:
                layer.weight, layer.bias = fuse_conv_bn_weights(
                    layer.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                setattr(block, normalization, nn.Identity())
    return folded


def by_onnx_runtime(network: nn.Module) -> Features:
    """The network in ONNX Runtime, on as many threads as PyTorch has."""
    import onnxruntime

    shape = network.input_shape
    assert isinstance(shape, tuple)
    content: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's successor, which takes ten times as long
        torch.onnx.export(
            network,
            (torch.zeros(1, *shape),),
            content,
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "images"}},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content.getvalue(), options, providers=["CPUExecutionProvider"])

    def features(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return features
