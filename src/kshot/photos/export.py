"""A classifier as one ONNX file: photographs in, probabilities out."""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

import kshot
from kshot.backbones.efficientnet_lite import EfficientNetLite
from kshot.data.images import InputForm
from kshot.errors import ConfigError
from kshot.evaluation.features import evaluating
from kshot.files import write_atomically
from kshot.photos.fast import folded_batch_norm
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork
from kshot.solvers import LinearHead


class WholeClassifier(nn.Module):
    """Pixels (M, H, W, C) uint8 to calibrated probabilities (M, N): normalisation, backbone, head and temperature."""

    def __init__(self, network: PhotoNetwork, head: LinearHead, temperature: float) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(network.form.mean))
        self.register_buffer("std", torch.tensor(network.form.std))
        self.backbone, self.finished = _backbone(network)
        self.head = nn.Linear(head.weight.shape[2], head.weight.shape[1])
        self.head.load_state_dict({"weight": head.weight[0] / temperature, "bias": head.bias[0] / temperature})

    def forward(self, pixels: Tensor) -> Tensor:
        """Probabilities (M, N) of pixels (M, H, W, C)."""
        images = ((pixels.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)
        return self.head(self.finished(self.backbone(images))).softmax(1)


class _Features(nn.Module):
    """A learner whose output is its features."""

    def __init__(self, learner: Any) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, images: Tensor) -> Tensor:
        return self.learner.features(images)


def _backbone(network: PhotoNetwork) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """What can be traced, and what its features go through."""
    if isinstance(network, PretrainedNetwork):
        module = network.module
        return (folded_batch_norm(module) if isinstance(module, EfficientNetLite) else module), network.finished
    if isinstance(network, LearnerNetwork):
        return _Features(network.learner), nn.Identity()
    if isinstance(network, nn.Module):
        return network, nn.Identity()
    raise ConfigError(
        f"{type(network).__name__} cannot be exported, since ONNX takes torch modules; make it a torch.nn.Module"
    )


def write_onnx(path: Path, network: PhotoNetwork, head: LinearHead, *, temperature: float, classes: list[Any]) -> None:
    """Write the whole classifier as ONNX, atomically; what goes in and out stands in its metadata.

    Raises
    ------
    ConfigError
        If onnx is not installed, or the network cannot be exported.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError("exporting needs the package onnx: pip install 'kshot[photos]'")
    import onnx

    whole = WholeClassifier(network, head, temperature).eval()
    size, channels = network.form.image_size, len(network.form.mean)
    content: Any = io.BytesIO()
    with warnings.catch_warnings(), _evaluation(network):
        warnings.simplefilter("ignore")  # of the exporter's successor, which takes ten times as long
        try:
            torch.onnx.export(
                whole,
                (torch.zeros(1, size, size, channels, dtype=torch.uint8),),
                content,
                input_names=["images"],
                output_names=["probabilities"],
                dynamic_axes={"images": {0: "M"}, "probabilities": {0: "M"}},
                dynamo=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ConfigError(f"the network cannot be written as ONNX: {' '.join(str(error).split())[:300]}") from error
    model = onnx.load_from_string(content.getvalue())
    onnx.helper.set_model_props(model, _about(network.form, classes))
    model.doc_string = _DOCUMENTATION

    def write(file: BinaryIO) -> None:
        file.write(model.SerializeToString())

    write_atomically(path, write)


_DOCUMENTATION = (
    "A few-shot classifier of photographs, made by kshot. Input `images`: (M, image_size, image_size, channels) uint8, "
    "RGB; turn a photograph as its EXIF says, resize its shorter side to `resize` and crop image_size x image_size at "
    "the centre. Output `probabilities`: (M, N) calibrated, in the order of `classes` in the metadata."
)


def _about(form: InputForm, classes: list[Any]) -> dict[str, str]:
    return {
        "kshot": kshot.__version__,
        "classes": json.dumps(classes, ensure_ascii=False),
        "image_size": str(form.image_size),
        "resize": str(form.resize),
        "interpolation": form.interpolation,
        "channels": str(len(form.mean)),
    }


def _evaluation(network: PhotoNetwork) -> AbstractContextManager[None]:
    return evaluating(network.learner, "float32") if isinstance(network, LearnerNetwork) else nullcontext()
