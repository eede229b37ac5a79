"""Any torch module as a backbone: `kshot.backbone(module, in_channels=3, image_size=84)`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kshot.backbones.independence import check_independence
from kshot.backbones.registry import Backbone
from kshot.backbones.replacement import replace_batch_norm
from kshot.errors import ConfigError, check_choice, check_positive

_PROBES = 6  # images of the pass that finds the feature size


def backbone(
    module: nn.Module,
    *,
    in_channels: int,
    image_size: int | tuple[int, int] | None = None,
    kind: Literal["images", "vectors", "series"] = "images",
    threads_at_once: bool = False,
) -> ModuleBackbone:
    """Make a backbone of any module, so that every learner takes it.

    The number of features is found by a pass. BatchNorm1d, BatchNorm2d and BatchNorm3d layers of torch are replaced IN
    `module` by kshot's, with the same weights: theirs would mix the tasks of a batch in training, and make the scores
    of MAML and its kin equal for "transductive" and "inductive" statistics. Running statistics are kept for layers with
    ``track_running_stats=False``, too. Other layers may not mix images: a module is refused if the feature of an image
    changes with the other images of the batch in evaluation, or with the images of other tasks in training.

    A module gives one vector per image, (M, D). Maps (M, C, H, W) or (M, C, D, H, W) are averaged over their positions;
    to keep the positions instead, give ``nn.Sequential(module, nn.Flatten())``. Other shapes are refused: what a
    dimension of (M, A, B) means is for its author to say, by a last layer that averages or flattens.

    config.yaml cannot say how the module of a run was made, so that the run is loaded with a learner that is built as
    the first one was: ``kshot.Run(path).load(learner=...)``. A run builds its backbone by itself if you write a class
    with `in_channels` and `image_size` as options and register it: ``@kshot.backbones.backbones.register("mine")``.

    Parameters
    ----------
    module
        Takes a batch and returns features. It becomes part of the backbone, and is trained with it.
    in_channels
        Channels of images or series; the length of vectors.
    image_size
        Side of the images in pixels, or their height and width; the length of series; None for vectors.
    kind
        What the module takes: "images" (M, C, H, W), "vectors" (M, C) or "series" (M, C, T), which datasets of arrays
        hold as images of 1 x 1 and of 1 x T pixels.
    threads_at_once
        Allow several threads to call the module at the same time, which is how tasks of MAML and its kin use several
        cores. Safe unless it draws random numbers (dropout included) or writes to itself in a forward pass.

    Returns
    -------
    ModuleBackbone
        A `Backbone` with the attributes ``feature_size`` and ``input_shape``.

    Raises
    ------
    ConfigError
        The module does not take such inputs, does not give one vector or map per image, mixes images, or draws random
        numbers in evaluation.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
    >>> kshot.backbone(network, in_channels=3, image_size=84)
    kshot.backbone(Sequential): 3 x 84 x 84 -> 32 features, 960 parameters
    """
    made = ModuleBackbone(module, in_channels=in_channels, image_size=image_size, kind=kind)
    made.threads_at_once = threads_at_once
    return made


class ModuleBackbone(Backbone):
    """A module of any origin within a backbone; `kshot.backbone` builds it and documents the arguments.

    Parameters
    ----------
    module, in_channels, image_size, kind
        As for `backbone`.
    """

    input_shape: tuple[int, int, int]

    def __init__(
        self,
        module: nn.Module,
        *,
        in_channels: int,
        image_size: int | tuple[int, int] | None = None,
        kind: Literal["images", "vectors", "series"] = "images",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"{module!r} is no torch.nn.Module, of which alone kshot.backbone can make a backbone")
        if isinstance(module, Backbone):
            raise ConfigError(f"{type(module).__name__} is a backbone already; give it to the learner as it is")
        check_choice("kind", kind, ("images", "vectors", "series"))
        height, width = _size(image_size, kind)
        check_positive(in_channels=in_channels, image_size=(height, width))
        self.kind = kind
        self.input_shape = (in_channels, height, width)
        self._taken = {"images": self.input_shape, "vectors": (in_channels,), "series": (in_channels, width)}[kind]
        size = {"images": height if height == width else (height, width), "vectors": None, "series": width}[kind]
        self.options = {"in_channels": in_channels, "image_size": size, "kind": kind}
        self.module = module
        self.module_name = type(module).__name__  # for messages
        self._prepare()

    def forward(self, images: Tensor) -> Tensor:
        """Features (M, feature_size) of images (M, C, H, W), or of vectors (M, C), or of series (M, C, T)."""
        inputs = self._as_taken(images)
        if inputs.shape[1:] != self._taken:
            raise ConfigError(
                f"the backbone of {self.module_name} was built for {self.kind} of shape {_product(self._taken)}, but "
                f"these are {_product(tuple(inputs.shape[1:]))}; build it by kshot.backbone with the in_channels and "
                "the image_size of the data"
            )
        return _vectors(self.module(inputs))

    def _as_taken(self, images: Tensor) -> Tensor:
        """Vectors and series without the sides of one pixel that datasets hold them with."""
        if self.kind == "vectors":
            return images.flatten(1)
        return images.squeeze(2) if self.kind == "series" and images.dim() == 4 else images

    def constructor_call(self) -> str:
        """How the backbone was made, by the name of the module."""
        return f"kshot.backbone({self.module_name})"

    @torch.no_grad()
    def _prepare(self) -> None:
        """Replace BatchNorm, find the feature size, and refuse what no learner could use."""
        like = next((tensor for tensor in self.parameters() if not nn.parameter.is_lazy(tensor)), torch.zeros(0))
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(_PROBES, *self.input_shape, generator=generator)
        images = images.to(like.device, like.dtype if like.is_floating_point() else torch.float32)
        self.feature_size = self._checked_outputs(images).shape[1]
        replace_batch_norm(self, self.module_name)
        check_independence(self, images, self.module_name)

    def _checked_outputs(self, images: Tensor) -> Tensor:
        """Features in evaluation mode; this first pass also gives torch's lazy layers their weights."""
        shape, modes = _product(tuple(images.shape[1:])), [(layer, layer.training) for layer in self.modules()]
        self.eval()
        try:
            outputs = self.module(self._as_taken(images))
        except Exception as error:  # whatever a module of any origin may raise
            raise ConfigError(
                f"{self.module_name} cannot take {self.kind} of {shape} ({type(error).__name__}: {error}); give the "
                "in_channels and the image_size of your data, and the kind that the module takes"
            ) from error
        finally:
            for layer, mode in modes:
                layer.training = mode
        if not isinstance(outputs, Tensor):
            raise ConfigError(
                f"{self.module_name} returns a {type(outputs).__name__} instead of a tensor of features (M, D); put it "
                "into a module that returns only these"
            )
        if outputs.dim() not in (2, 4, 5) or len(outputs) != len(images) or not outputs.is_floating_point():
            raise ConfigError(
                f"{self.module_name} gives {outputs.dtype} {tuple(outputs.shape)} for {len(images)} {self.kind}, "
                f"instead of features ({len(images)}, D) or maps ({len(images)}, C, H, W); add a layer that averages "
                "or flattens, such as nn.Flatten()"
            )
        if not outputs.isfinite().all():
            raise ConfigError(f"{self.module_name} gives features that are not finite; look for NaN in its weights")
        return _vectors(outputs)


def _size(image_size: int | tuple[int, int] | None, kind: str) -> tuple[int, int]:
    """Height and width of what a dataset holds."""
    if kind == "vectors":
        if image_size not in (None, 1):
            raise ConfigError(f"image_size is {image_size}, but vectors have none: in_channels is their length")
        return 1, 1
    if image_size is None:
        raise ConfigError("image_size is missing: give the side of the images in pixels, or the length of the series")
    if isinstance(image_size, int):
        return (1 if kind == "series" else image_size), image_size
    if kind == "series" or len(image_size) != 2:
        raise ConfigError(f"image_size is {image_size}; give one number, or height and width of images")
    return image_size[0], image_size[1]


def _vectors(outputs: Tensor) -> Tensor:
    """Features (M, D) as they are; maps (M, C, ...) averaged over their positions."""
    return outputs.flatten(2).mean(2) if outputs.dim() > 2 else outputs


def _product(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
