"""config.yaml, which says what a run was made from: the data, the learner, its backbone, and the training."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
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
from kshot.files import read_text, write_text
from kshot.learners.base import Learner, learners
from kshot.runs import lock

_SECTIONS = ("data", "backbone", "learner", "training")
_ADVICE = "put the file back as training wrote it, or train the run again"
_LARGEST = 1 << 20  # bytes
_CHECKSUM = re.compile(r"# checksum ([0-9a-f]{64}) .*\n\Z")
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
            f"no learner can be built from {described}: {' '.join(str(error).split())}; {_ADVICE}"
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


class _PlainDumper(yaml.SafeDumper):
    """Writes a list that occurs twice twice, and not as a reference to it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """Refuses references, a few lines of which can stand for more values than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds references, which kshot does not write")
        return super().compose_node(parent, index)


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write config.yaml, with its own checksum in the last line; OSError if that fails."""
    text = yaml.dump(dict(config), Dumper=_PlainDumper, sort_keys=False)
    write_text(path, f"{text}# checksum {_digest(text)} of the lines above; remove it if you change them on purpose\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_config(run: Path | str) -> dict[str, Any]:
    """The sections of a run's config.yaml; CheckpointError if it is missing, damaged or incomplete."""
    path = Path(run) / "config.yaml"
    try:
        text = read_text(path, limit=_LARGEST)
        config = yaml.load(text, Loader=_PlainLoader)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{run} is no run folder: it has no config.yaml; check the path") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from None
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({' '.join(str(error).split())}); {_ADVICE}") from error
    written = _CHECKSUM.search(text)  # an earlier version of kshot wrote none
    if written is None and "# checksum" in text:
        raise CheckpointError(f"{path} is damaged: the line with its checksum is not whole; {_ADVICE}")
    if written is not None and written[1] != _digest(text[: written.start()]):
        raise CheckpointError(
            f"{path} is not as training wrote it: its checksum differs; put it back, train the run again, or remove "
            f"the last line of the file if you changed it on purpose"
        )
    faults = list(_faults(config if isinstance(config, dict) else {}))
    if faults:
        raise CheckpointError(f"{path} is incomplete: {'; '.join(faults)}; {_ADVICE}")
    return config


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the content of config.yaml."""
    missing = [name for name in _SECTIONS if not isinstance(config.get(name), dict)]
    missing += [f"{name}.name" for name in ("data", "learner") if name not in missing and "name" not in config[name]]
    if missing:
        yield f"it lacks {', '.join(missing)}"
        return
    for section in _SECTIONS:
        for name, value in config[section].items():
            if not isinstance(name, str) or not _is_plain(value) or (name == "name" and not isinstance(value, str)):
                yield f"{section}.{name} is {value!r:.60}"
    if config["backbone"] and not {"name", "unregistered"} & config["backbone"].keys():
        yield "it lacks backbone.name"
    training = config["training"]
    if type(training.get("seed")) is not int or not isinstance(training.get("schedule"), str):
        yield "training.seed is no whole number, or training.schedule no text"
    if "normalization" in config["data"] and not _is_form(config["data"]):
        yield "data.image_shape or data.normalization is not the form of images"


def _is_plain(value: Any) -> bool:
    """Whether this is what `_plain` makes, and finite."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(part) for name, part in value.items())
    if isinstance(value, float):
        return not math.isnan(value)
    return value is None or isinstance(value, (bool, int, str))


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
    return folder.with_name(f"{folder.name}-{_digest(_identity(config))[:6]}")


def _identity(config: Mapping[str, Any]) -> str:
    """The options that make two runs two, as text."""
    ignored = set(_FREE_ON_RESUME) - {"max_epochs", "patience"}
    training = {name: value for name, value in config["training"].items() if name not in ignored}
    return json.dumps(dict(config) | {"training": training}, sort_keys=True)


def free_on_resume(training: Mapping[str, Any]) -> set[str]:
    """Names of the options of training that a continued run may change."""
    bound = training["schedule"] in ("cosine", "linear")  # their rates depend on the number of epochs
    return set(_FREE_ON_RESUME) - ({"max_epochs"} if bound else set())
