"""Weights from files, and models of the timm library with the form of images that belongs to their weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kshot.backbones.timm_adapter import import_timm
from kshot.data.images import InputForm, Interpolation
from kshot.errors import ConfigError
from kshot.files import read_json

Weights = str | Path | Mapping[str, Tensor]
TIMM = "timm:"  # before the names of timm's models
_LARGEST_CONFIG = 1 << 20  # bytes


def timm_network(name: str, weights: Path | Mapping[str, Tensor] | None) -> tuple[nn.Module, InputForm]:
    """A model of timm without its classifier, in evaluation mode, and how its images have to look.

    Parameters
    ----------
    name
        timm's name of the model after "timm:"; with a tag, such as "timm:resnet18.a1_in1k", it names one of several
        weights.
    weights
        A file of weights, or tensors by name; None for those that timm downloads.

    Raises
    ------
    ConfigError
        If timm is missing, does not know the model, or the weights cannot be had or do not fit.
    """
    timm = import_timm()
    model = name.removeprefix(TIMM)
    if not timm.is_model(model):
        raise ConfigError(f"timm has no model {model!r}; timm.list_models('*part of the name*') lists them")
    try:
        network = timm.create_model(model, pretrained=weights is None, num_classes=0)
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"the weights of {name} cannot be had ({' '.join(str(error).split())}); download them where there is a "
            "network, and give the file as weights"
        ) from error
    known = dict(timm.data.resolve_data_config({}, model=network))
    if weights is not None:
        load_weights(network, weights, unused=_classifiers(network))
        known |= _stated_form(weights) if isinstance(weights, Path) else {}
    return network.eval(), _form(known)


def load_weights(module: nn.Module, weights: Path | Mapping[str, Tensor], *, unused: str | tuple[str, ...]) -> None:
    """Put the weights of a file into a module.

    Parameters
    ----------
    module
        Takes every tensor of the file, and needs no other.
    weights
        A safetensors file, a file with a state dict of torch, or tensors by name.
    unused
        What the names of tensors begin with that the module does without: its classifier.

    Raises
    ------
    ConfigError
        If the file cannot be read, or its tensors are others.
    """
    tensors = _tensors(weights) if isinstance(weights, Path) else weights
    used = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    needed = module.state_dict()
    counters = {name for name in needed if name.endswith("num_batches_tracked")}  # which some files leave out
    wrong = [name for name in needed if name not in used and name not in counters]
    wrong += [name for name in used if name not in needed or used[name].shape != needed[name].shape]
    if wrong:
        where = f"in {weights} " if isinstance(weights, Path) else ""
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise ConfigError(f"the weights {where}are of another network: they differ in {shown}")
    module.load_state_dict(used, strict=False)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"there are no weights {path}; check the path") from None
    except Exception as error:  # torch raises many kinds for files that are none of its own
        raise ConfigError(f"{path} cannot be read as weights ({' '.join(str(error).split())[:200]})") from error
    nested = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(nested, dict) or not all(isinstance(tensor, Tensor) for tensor in nested.values()):
        raise ConfigError(f"{path} holds no state dict, but {type(content).__name__}; save model.state_dict()")
    return nested


def _classifiers(network: nn.Module) -> tuple[str, ...]:
    """The names of the layers that timm leaves out for num_classes=0."""
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names)) or ("no such tensor",)


def _stated_form(weights: Path) -> Mapping[str, Any]:
    """What config.json next to the weights says of their images, as timm's repositories have it."""
    path = weights.with_name("config.json")
    if not path.is_file():
        return {}
    try:
        stated = read_json(path, limit=_LARGEST_CONFIG)["pretrained_cfg"]
        return {
            name: stated[name] for name in ("input_size", "mean", "std", "crop_pct", "interpolation") if name in stated
        }
    except (OSError, ValueError, LookupError, TypeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); repair it, or move it away from the weights") from error


def _form(known: Mapping[str, Any]) -> InputForm:
    size = int(known["input_size"][-1])
    interpolation: Interpolation = "bicubic" if known.get("interpolation") == "bicubic" else "bilinear"
    return InputForm(
        size,
        tuple(map(float, known["mean"])),
        tuple(map(float, known["std"])),
        resize=math.floor(size / float(known.get("crop_pct") or 1)),
        interpolation=interpolation,
    )
