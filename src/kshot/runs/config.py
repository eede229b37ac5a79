"""config.yaml, which says what a run was made from: the data, the learner, its backbone, and the training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from kshot.backbones import backbones
from kshot.data.catalog import load_images
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.learners.base import Learner, learners
from kshot.runs import checked_yaml, lock

_SECTIONS = ("data", "backbone", "learner", "training")
# what may change between the start of a run and its continuation without changing a number of what was done
_FREE_ON_RESUME = ("device", "loggers", "max_epochs", "patience", "progress", "time_limit")


def describe_data(data: AnyDataset) -> dict[str, Any]:
    """The section "data" of config.yaml: the dataset's name, and the form of its images, which outlives its files."""
    if isinstance(data, RegressionDataset):
        return {"name": data.name}
    split = data.train
    form = {"image_shape": split.image_shape, "normalization": asdict(split.normalization)}
    return {"name": data.name} | {name: _plain(value) for name, value in form.items()}


def image_form(described: Mapping[str, Any], *, root: Path | str | None, run: str) -> ImageForm:
    """The images that the learner of a run takes, known without the dataset.

    Parameters
    ----------
    described
        The section "data" of config.yaml.
    root
        The folder of prepared datasets, for runs of an earlier version, which need their dataset.
    run
        What messages call the run.

    Raises
    ------
    ConfigError
        For tasks of regression, which have no images.
    CheckpointError
        If the run is of an earlier version, and its dataset is not at hand.
    """
    if described["name"] in FAMILIES:
        raise ConfigError(f"{run} was trained on {described['name']}, whose tasks have no images")
    if "normalization" in described:
        stored = described["normalization"]
        normalization = Normalization(tuple(stored["mean"]), tuple(stored["std"]), stored["augment"])
        return ImageForm(described["name"], tuple(described["image_shape"]), normalization)
    try:
        split = load_images(described["name"], root=root).train
    except DataError as error:
        raise CheckpointError(
            f"{run} was trained by an earlier version of kshot and does not say how its images have to look, "
            f"so its dataset must be at hand: {error}"
        ) from error
    return ImageForm(described["name"], split.image_shape, split.normalization)


def describe_learner(learner: Learner) -> dict[str, Any]:
    """The sections "learner" and "backbone" of config.yaml: registered names and constructor options.

    A backbone that is not registered is described by its class under "unregistered". Raises ConfigError for a learner
    that is not registered.
    """
    section: dict[str, Any] = {"name": learners.name_of(learner)}
    backbone: dict[str, Any] = {}
    for name, value in learner.options.items():
        if isinstance(value, nn.Module):
            backbone = _describe_backbone(value)
        else:
            section[name] = _plain(value)
    return {"backbone": backbone, "learner": section}


def _describe_backbone(backbone: nn.Module) -> dict[str, Any]:
    try:
        name = backbones.name_of(backbone)
    except ConfigError:
        return {"unregistered": getattr(backbone, "module_name", type(backbone).__qualname__)}
    options: Mapping[str, object] = backbone.options  # type: ignore[assignment]  # registered classes have them
    return {"name": name} | {option: _plain(value) for option, value in options.items()}


def _plain(value: Any) -> Any:
    """The same value as YAML and a safe checkpoint can hold it."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{value!r} cannot be written to config.yaml; options must be numbers, strings or lists of them")


def build_learner(config: Mapping[str, Any], download: bool = True) -> Learner:
    """A new learner from the sections "learner" and "backbone" of a config; ConfigError if that cannot be.

    download: fetch a backbone's pretrained weights; False if a checkpoint will replace them anyhow.
    """
    if "unregistered" in config["backbone"]:
        raise ConfigError(
            f"the backbone {config['backbone']['unregistered']} is not registered, so the learner cannot be built from "
            f"config.yaml; build it yourself and give it: Run(path).load(learner=...)"
        )
    try:
        return _built(config, download)
    except (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        described = {section: config[section] for section in ("learner", "backbone")}
        raise ConfigError(
            f"no learner can be built from {described}: {' '.join(str(error).split())}; {checked_yaml.ADVICE}"
        ) from error


def _built(config: Mapping[str, Any], download: bool) -> Learner:
    options = {section: dict(config[section]) for section in ("learner", "backbone")}
    learner_class = learners[options["learner"].pop("name")]
    if not options["backbone"]:
        return learner_class(**options["learner"])
    backbone_class = backbones[options["backbone"].pop("name")]
    fetched = {} if download or "pretrained" not in options["backbone"] else {"pretrained": False}
    backbone = backbone_class(**options["backbone"] | fetched)
    # what the run was built from, which a resumed run is compared with
    backbone.options = backbone.options | options["backbone"]  # type: ignore[operator]
    return learner_class(backbone, **options["learner"])


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml, with its own checksum in the last line; OSError if that fails."""
    checked_yaml.write(path, config)


def read_config(run: Path | str) -> dict[str, Any]:
    """The sections of a run's config.yaml; CheckpointError if it is missing, damaged or incomplete."""
    path = Path(run) / "config.yaml"
    config = checked_yaml.read(path, _SECTIONS, kind="run folder")
    checked_yaml.refuse(path, _faults(config))
    return config


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the values of config.yaml."""
    training = config["training"]
    if type(training.get("seed")) is not int or not isinstance(training.get("schedule"), str):
        yield "training.seed is no whole number, or training.schedule no text"
    if "normalization" in config["data"] and not _is_form(config["data"]):
        yield "data.image_shape or data.normalization is not the form of images"


def _is_form(data: Mapping[str, Any]) -> bool:
    shape, form = data.get("image_shape"), data["normalization"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        return False
    if not isinstance(form, dict) or form.get("augment") not in ("photo", "none"):
        return False
    values: list[Any] = [form.get("mean"), form.get("std")]
    if not all(isinstance(value, list) and len(value) == shape[0] for value in values):
        return False
    numbers = [*values[0], *values[1]]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        return False
    return min(form["std"]) > 0


def folder_for(folder: Path, config: Mapping[str, Any]) -> Path:
    """The folder itself, or one whose name ends with a hash of the options if other options have taken it.

    Parameters
    ----------
    folder
        The name that a run gets by default.
    config
        The sections of config.yaml of the run that is about to start.
    """
    if lock.is_held(folder):  # by a training that may not have said yet what it is
        return _hashed(folder, config)
    try:
        saved = read_config(folder)
    except CheckpointError:
        return folder  # nothing is there, or what is refused later on
    return folder if _identity(saved) == _identity(config) else _hashed(folder, config)


def _hashed(folder: Path, config: Mapping[str, Any]) -> Path:
    return folder.with_name(f"{folder.name}-{checked_yaml.digest(_identity(config))[:6]}")


def _identity(config: Mapping[str, Any]) -> str:
    """The options that make two runs two, as text."""
    ignored = set(_FREE_ON_RESUME) - {"max_epochs", "patience"}
    training = {name: value for name, value in config["training"].items() if name not in ignored}
    return json.dumps(dict(config) | {"training": training}, sort_keys=True)


def free_on_resume(training: Mapping[str, Any]) -> set[str]:
    """Names of the options of training that a continued run may change."""
    bound = training["schedule"] in ("cosine", "linear")  # their rates depend on the number of epochs
    return set(_FREE_ON_RESUME) - ({"max_epochs"} if bound else set())
