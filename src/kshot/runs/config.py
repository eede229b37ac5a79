"""config.yaml, which says what a run was made from: the data, the learner, its backbone, and the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from kshot.backbones import backbones
from kshot.data.regression import RegressionDataset
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError
from kshot.learners.base import Learner, learners

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
    """A new learner from the sections "learner" and "backbone" of a config; ConfigError where that cannot be.

    download: fetch a backbone's pretrained weights; False where a checkpoint will replace them anyhow.
    """
    if "unregistered" in config["backbone"]:
        raise ConfigError(
            f"the backbone {config['backbone']['unregistered']} is not registered, so the learner cannot be built from "
            f"config.yaml; build it yourself and give it: Run(path).load(learner=...)"
        )
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


def read_config(run: Path | str) -> dict[str, Any]:
    """The sections of a run's config.yaml; CheckpointError where there is none, or it is damaged or incomplete."""
    path = Path(run) / "config.yaml"
    advice = "put the file back as training wrote it, or train the run again"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{run} is no run folder: it has no config.yaml; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {advice}") from error
    sections = config if isinstance(config, dict) else {}
    missing = [name for name in _SECTIONS if not isinstance(sections.get(name), dict)]
    missing += [f"{name}.name" for name in ("data", "learner") if name not in missing and "name" not in sections[name]]
    if missing:
        raise CheckpointError(f"{path} is incomplete: it lacks {', '.join(missing)}; {advice}")
    return sections


def free_on_resume(training: Mapping[str, Any]) -> set[str]:
    """Names of the options of training that a continued run may change."""
    bound = training["schedule"] in ("cosine", "linear")  # their rates depend on the number of epochs
    return set(_FREE_ON_RESUME) - ({"max_epochs"} if bound else set())
