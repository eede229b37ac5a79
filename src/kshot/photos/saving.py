"""Classifiers as files: what was learnt, on which backbone, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kshot
from kshot.errors import CheckpointError, ConfigError, DataError, KshotError
from kshot.photos.container import damaged, read_container, write_container
from kshot.photos.evidence import Evidence
from kshot.photos.examples import Examples
from kshot.photos.heads import MeanHead, balanced_head
from kshot.photos.network import PhotoNetwork, PretrainedNetwork
from kshot.photos.saved_network import built_network, describe_network
from kshot.solvers import HeadAdaptation, LinearHead
from kshot.solvers.adaptation import adaptations
from kshot.solvers.heads import Head

_KINDS = {"U": np.str_, "i": np.int64, "f": np.float64, "b": np.bool_}  # of classes
_SHOWN = 20  # classes


@dataclass(frozen=True, eq=False)
class Saved:
    """A classifier as its file holds it: `FewShotClassifier.load` makes one again, and ``print`` shows what is in it.

    Attributes
    ----------
    about
        What JSON can hold: the classes, the options, the temperature, the estimate, the backbone.
    tensors
        The head, features and thumbnails of the examples, weights of the backbone.
    """

    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path | str) -> Saved:
        """The content of the file at `path`; CheckpointError if it is missing, damaged, no classifier, or too new."""
        about, tensors = read_container(Path(path))
        saved = cls(about, tensors)
        try:
            _check(about, tensors)
            str(saved)
        except KshotError as error:
            raise damaged(path, str(error)) from None
        except Exception as error:  # whatever a file that kshot did not write may lead to
            raise damaged(path, f"{type(error).__name__}: {' '.join(str(error).split())}") from None
        return saved

    def write(self, path: Path | str) -> None:
        """Write the file at `path`, atomically; OSError if that fails."""
        write_container(Path(path), self.about, self.tensors)

    def __str__(self) -> str:
        about, tensors = self.about, self.tensors
        classes = about["classes"]
        counts = np.bincount(tensors["labels"].numpy(), minlength=len(classes))
        lines = [
            f"a classifier of {len(classes)} classes, from {len(tensors['labels'])} examples; kshot {about['kshot']}"
        ]
        lines += [f"  {name}: {count} examples" for name, count in list(zip(classes, counts))[:_SHOWN]]
        lines += [f"  and {len(classes) - _SHOWN} more classes"] if len(classes) > _SHOWN else []
        stored = sum(name.startswith("network.") for name in tensors)
        where = "its weights are in the file" if stored else "its weights are not in the file"
        backbone = about["backbone"]
        lines.append(
            f"backbone: {backbone['trained_on']}; {where}" if backbone else "backbone: none, it takes features"
        )
        lines.append(
            f"head: {_head_text(about['options'].get('head'))}; scores are divided by {about['temperature']:.3g}"
        )
        if about["estimate"] is not None:
            low, mean, high = (100 * about["estimate"][name] for name in ("low", "accuracy", "high"))
            lines.append(
                f"accuracy on examples that were left out: {mean:.0f} % (95% interval {low:.0f} to {high:.0f} %)"
            )
        kept = ["features"] + (["thumbnails"] if "thumbnails" in tensors else [])
        lines.append(f"of the examples it holds: {' and '.join(kept)}")
        return "\n".join(lines)


def packed(classifier: Any, *, thumbnails: bool) -> Saved:
    """What is to be saved of a fitted classifier; ConfigError if a part of it cannot be."""
    classes = classifier.classes_
    kind = {"u": "i"}.get(classes.dtype.kind, classes.dtype.kind)
    if kind == "O" and all(isinstance(name, str) for name in classes):
        kind = "U"
    if kind not in _KINDS:
        raise ConfigError(f"classes of type {classes.dtype} cannot be saved; name them by text or by numbers")
    network = classifier._network() if classifier._fitted_to_photographs else None
    backbone, tensors = (None, {}) if network is None else describe_network(network)
    estimate, examples = classifier.estimate(), classifier._evidence.examples
    about = {
        "kshot": kshot.__version__,
        "classes": classes.tolist(),
        "class_kind": kind,
        "options": _described_options(classifier.get_params(deep=False)),
        "temperature": float(classifier.temperature),
        "estimate": None
        if estimate is None
        else {name: float(getattr(estimate, name)) for name in ("low", "accuracy", "high")},
        "value_range": classifier._value_range,
        "names": [Path(name).name for name in examples.names],  # whose folders are nobody else's business
        "backbone": backbone,
    }
    tensors |= {"features": examples.features, "labels": examples.labels, "series": examples.series}
    if examples.plain is not examples.features:
        tensors["plain_features"] = examples.plain
    head = linear(classifier._head)
    if head is not None:
        tensors |= {"head.weight": head.weight, "head.bias": head.bias}
    if thumbnails:
        if classifier._thumbnails is None:
            raise ConfigError("there are no thumbnails of examples that were given as features")
        tensors["thumbnails"] = torch.from_numpy(classifier._thumbnails)
    return Saved(about, tensors)


def restore(classifier: Any, saved: Saved, path: Path | str, backbone: PhotoNetwork | None) -> None:
    """Give a new classifier what a file holds.

    Parameters
    ----------
    classifier
        Built without options; it gets those of the file.
    saved, path
        The content of the file, and its name for messages.
    backbone
        The network to use; None for the one that the file describes.

    Raises
    ------
    ConfigError
        If the backbone is not installed, must be given, or gives other features than the examples' ones.
    CheckpointError
        If the file holds what kshot does not write.
    """
    try:
        _restore(classifier, saved, path, backbone)
    except KshotError:
        raise
    except Exception as error:  # whatever a file that kshot did not write may lead to
        raise damaged(path, f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _restore(classifier: Any, saved: Saved, path: Path | str, backbone: PhotoNetwork | None) -> None:
    about, tensors = saved.about, saved.tensors
    features, labels, classes = tensors["features"], tensors["labels"], about["classes"]
    options = _built_options(about["options"])
    if about["backbone"] is not None:
        network = built_network(about["backbone"], tensors, path, backbone)
        by_name = backbone is None and isinstance(network, PretrainedNetwork) and network.weights is None
        options["backbone"] = about["backbone"]["name"] if by_name else network
    unknown = options.keys() - classifier.get_params(deep=False).keys()
    if unknown:
        raise CheckpointError(f"{path} has options that this kshot does not know: {', '.join(sorted(unknown))}")
    classifier.set_params(**options)
    classifier.classes_ = np.asarray(classes, _KINDS[about["class_kind"]])
    classifier._fitted_to_photographs = about["backbone"] is not None
    classifier._value_range = _range(about["value_range"])
    classifier._thumbnails = tensors["thumbnails"].numpy() if "thumbnails" in tensors else None
    if about["backbone"] is None:
        classifier.n_features_in_ = features.shape[1]
    adaptation = classifier._adaptation()
    plain = tensors.get("plain_features", features)
    examples = Examples(features, plain, labels, tensors["series"], list(map(str, about["names"])))
    temperature = float(about["temperature"])
    classifier._evidence = Evidence(
        adaptation, examples, classifier.classes_.tolist(), seed=classifier.seed, temperature=temperature
    )
    weight, bias = tensors.get("head.weight"), tensors.get("head.bias")
    if weight is None or bias is None:
        classifier._head = balanced_head(adaptation, features[None], labels[None], len(classes))
    else:
        classifier._head = LinearHead(weight, bias)


def _check(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """DataError for what kshot does not write: a checksum says only that nobody damaged it afterwards."""
    kinds = {"classes": list, "class_kind": str, "options": dict, "names": list, "temperature": float, "kshot": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(about[name], kind)]
    wrong += [name for name in ("estimate", "backbone") if not isinstance(about[name], (dict, type(None)))]
    wrong += ["temperature"] if not wrong and not 0 < about["temperature"] < math.inf else []
    if wrong:
        raise DataError(f"{', '.join(wrong)}: not what kshot writes")
    features, labels, ways = tensors["features"], tensors["labels"], len(about["classes"])
    if (
        features.dim() != 2
        or labels.shape != features.shape[:1]
        or set(labels.tolist()) != set(range(ways))
        or ways < 2
    ):
        raise DataError("its examples are not of its classes")
    series, plain = tensors["series"], tensors.get("plain_features", features)
    if series.shape != labels.shape or series.dtype != torch.int64 or plain.shape != features.shape:
        raise DataError("its series or plain features are not of its examples")
    if len(about["names"]) != len(labels):
        raise DataError("its examples have other names")
    weight, bias = tensors.get("head.weight"), tensors.get("head.bias")
    expected = (1, ways, features.shape[1])
    if (weight is None) != (bias is None) or (
        weight is not None and bias is not None and (weight.shape != expected or bias.shape != expected[:2])
    ):
        raise DataError("its head is not of its classes")
    thumbnails = tensors.get("thumbnails")
    if thumbnails is not None and (
        thumbnails.dim() != 4 or thumbnails.dtype != torch.uint8 or len(thumbnails) != len(labels)
    ):
        raise DataError("its thumbnails are not of its examples")


def _range(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = map(float, value)
    return low, high


def _described_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A classifier's options, apart from its backbone, as JSON can hold them; ConfigError for an unregistered head."""
    described = {name: value for name, value in options.items() if name != "backbone"}
    head = described.get("head")
    if isinstance(head, HeadAdaptation):
        described["head"] = {"name": adaptations.name_of(head), "options": dict(getattr(head, "options", {}))}
    return described


def _built_options(described: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(described)
    head = options.get("head")
    if isinstance(head, Mapping):
        options["head"] = adaptations[head["name"]](**head["options"])
    return options


def _head_text(head: Any) -> str:
    if head is None:
        return "the backbone's own, or logistic"
    return head if isinstance(head, str) else f"{head['name']} {head['options']}"


def linear(head: Head) -> LinearHead | None:
    """The same head as weight and bias; None if it is not linear."""
    if isinstance(head, LinearHead):
        return head
    if isinstance(head, MeanHead) and isinstance(head.head, LinearHead):
        weight, bias = (part.unflatten(0, (-1, head.draws)).mean(1) for part in (head.head.weight, head.head.bias))
        return LinearHead(weight, bias)
    return None
