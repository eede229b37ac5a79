"""The network of a photo classifier: a pretrained backbone, or the backbone of a trained learner."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kshot.backbones.efficientnet_lite import EfficientNetLite
from kshot.backbones.registry import backbones
from kshot.data.dataset import ImageForm
from kshot.data.images import InputForm
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.learners.base import FeatureLearner, Learner, learners
from kshot.photos.fast import Features, fast_on_cpu
from kshot.photos.weights import TIMM, Weights, load_weights, timm_network
from kshot.solvers import HeadAdaptation

POWER = 0.7  # of features: best for 1 and 5 examples per class of the CIFAR-FS validation classes
SAME_SERIES = 0.84  # see `PretrainedNetwork.same_series`


class PhotoNetwork(Protocol):
    """What turns photographs into features: its `form` says how the photographs have to look.

    A network that also has a `key`, a text that changes with its weights, has its features remembered. One that has
    `same_series`, a cosine, says from which on two photographs of a class count as taken in one series.
    """

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
        A registered backbone that has published weights, such as "efficientnet-lite0", or a model of the timm library,
        such as "timm:resnet18.a1_in1k", with the size, crop and normalisation that timm knows of its weights.
    weights
        Other weights for it: a file, safetensors or a state dict of torch, or tensors by name; None for the published
        ones. For a model of timm, a config.json next to the file, as the Hugging Face hub has, says how its images
        have to look.

    Raises
    ------
    ConfigError
        If there is no such backbone, it has no published weights, or the weights are not installed or do not fit.
    """

    def __init__(self, name: str, *, weights: Weights | None = None) -> None:
        self.name, self.weights = name, Path(weights) if isinstance(weights, str) else weights
        given = f" {weights}" if isinstance(weights, (str, Path)) else " of its own"
        self.trained_on = f"{name}, trained on ImageNet" if weights is None else f"{name} with weights{given}"
        self.module: nn.Module
        if name.startswith(TIMM):
            self.module, self.form = timm_network(name, self.weights)
            if weights is None:
                self.trained_on = f"{name}, with timm's weights"
            return
        kind = backbones[name]
        if not issubclass(kind, EfficientNetLite):
            suitable = [name for name, kind in backbones.items() if issubclass(kind, EfficientNetLite)]
            raise ConfigError(
                f"the backbone {name!r} has no weights to start from; choose one of {', '.join(suitable)}, or a model "
                f"of timm, such as {TIMM}resnet18"
            )
        self.form = kind.pretrained_form
        self.module = kind(image_size=self.form.image_size, pretrained=weights is None).eval()
        if self.weights is not None:
            load_weights(self.module, self.weights, unused="_fc.")

    def __reduce__(self) -> Any:
        return _restored, (self.name, self.weights)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The weights by name."""
        return self.module.state_dict()

    @cached_property
    def key(self) -> str:
        """What names the weights."""
        return f"unit power {POWER if self.made_of(EfficientNetLite) else 1} {digest_of(self.tensors)}"

    @property
    def same_series(self) -> float | None:
        """From which cosine on two photographs of a class count as taken in one series; None if that is not known.

        With EfficientNet-Lite0 and 0.84, the estimate from 5 photographs of groceries is right on those of other days;
        99 of 100 pairs of unrelated photographs of a butterfly are below it.
        """
        return SAME_SERIES if self.made_of(EfficientNetLite) else None

    def made_of(self, kind: type[nn.Module]) -> bool:
        """Whether the backbone is of this `kind`, a class."""
        return isinstance(self.module, kind)

    @cached_property
    def _features(self) -> Features:
        """Made ready when the first photograph comes, which takes longer than to look features up."""
        return fast_on_cpu(self.module) if isinstance(self.module, EfficientNetLite) else self.module

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) of unit length, of normalised images (M, 3, H, W)."""
        return self.finished(self._features(images))

    def finished(self, features: Tensor) -> Tensor:
        """What the backbone's own features (M, D) become: of unit length, the large ones of EfficientNet-Lite damped.

        Features after a ReLU have a few large values, which a power below 1 brings closer to the others (Hu et al.
        2021, PT-MAP, eq. 2).
        """
        damped = features.clamp(min=0).pow(POWER) if self.made_of(EfficientNetLite) else features
        return nn.functional.normalize(damped, dim=1)


@lru_cache(maxsize=2)
def pretrained(name: str) -> PretrainedNetwork:
    """The network of published weights, built once per process."""
    return PretrainedNetwork(name)


def _restored(name: str, weights: Weights | None) -> PretrainedNetwork:
    return PretrainedNetwork(name, weights=weights)


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
        self.learner, self.image_form = learner, form

    @property
    def key(self) -> str:
        """What names the weights, which training may move."""
        options = getattr(self.learner, "options", {})
        plain = {name: value for name, value in options.items() if not isinstance(value, nn.Module)}
        backbone = getattr(options.get("backbone"), "options", {})
        text = f"{type(self.learner).__name__} {plain} {backbone}"
        return f"{text} {digest_of(self.learner.state_dict())}"

    def __call__(self, images: Tensor) -> Tensor:
        """Features (M, D) of normalised images (M, C, H, W)."""
        with evaluating(self.learner, "float32"):
            return self.learner.features(images.to(device_of(self.learner))).cpu()


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and numbers of tensors."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
