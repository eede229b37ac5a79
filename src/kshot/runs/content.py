"""What the checkpoints of a run must hold: checked before any of it is used.

A checksum says that a file is as it was written, and not that training wrote it. These checks turn what training
cannot have written into an error that names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from kshot.errors import CheckpointError
from kshot.runs.checkpoints import way_out

_SECTIONS = ("data", "backbone", "learner", "training")
_COUNTS = ("epoch", "step", "best_epoch")
_SUMS = ("loss", "accuracy", "epoch_seconds", "seconds")
_BEST = ("best_accuracy", "best_ci95")  # nan before the first validation


def check_weights(content: Mapping[str, Any], path: Path) -> None:
    """CheckpointError unless a checkpoint has the sections of config.yaml, and finite weights by name."""
    _refuse(path, _weight_faults(content))


def check_resumable(content: Mapping[str, Any], path: Path) -> None:
    """CheckpointError unless a checkpoint has all that training goes on from."""
    faults = [*_weight_faults(content)]
    faults += [f"it has no {name}" for name in ("optimizer", "schedule") if not isinstance(content.get(name), dict)]
    _refuse(path, faults or _counter_faults(content.get("counters")))


def check_history(content: Mapping[str, Any], path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows that metrics.csv and timing.csv are written from; CheckpointError if they are none."""
    _refuse(path, [*_config_faults(content), *_counter_faults(content.get("counters"))])
    return content["counters"]["history"]


def check_optimizer(saved: Mapping[str, Any], optimizer: Optimizer, path: Path) -> None:
    """CheckpointError unless a saved state has the form of this optimiser's, for these parameters."""
    _refuse(path, _optimizer_faults(saved, optimizer))


def check_schedule(saved: Mapping[str, Any], fresh: Mapping[str, Any], path: Path) -> None:
    """CheckpointError unless a saved state has the form of `fresh`, the state of a schedule that has not begun."""
    missing = [f"the schedule has no {name}" for name in fresh if name not in saved]
    _refuse(path, missing or _schedule_faults(saved, fresh))


def _refuse(path: Path, faults: Iterator[str] | Sequence[str]) -> None:
    text = "; ".join(faults)
    if text:
        raise CheckpointError(f"{path} is not as training writes it ({text}); {way_out(path)}")


def _config_faults(content: Mapping[str, Any]) -> Iterator[str]:
    config = content.get("config")
    if not isinstance(config, dict) or not all(isinstance(config.get(section), dict) for section in _SECTIONS):
        yield "it does not say what it was trained from"


def _weight_faults(content: Mapping[str, Any]) -> Iterator[str]:
    yield from _config_faults(content)
    weights = content.get("learner")
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights):
        yield "it has no weights by name"
        return
    for name, weight in weights.items():
        if not isinstance(weight, torch.Tensor):  # what a module keeps besides, see `get_extra_state`
            continue
        if weight.is_floating_point() and not weight.isfinite().all():
            yield f"{name} is not finite"


def _counter_faults(counters: Any) -> Iterator[str]:
    if not isinstance(counters, dict) or {*_COUNTS, *_SUMS, *_BEST, "history"} != counters.keys():
        yield "it has no counters, or others"
        return
    for name in _COUNTS:
        if type(counters[name]) is not int or counters[name] < 0:
            yield f"{name} is {counters[name]!r:.40}"
    for name in _SUMS:
        if not _is_number(counters[name]) or not math.isfinite(counters[name]):
            yield f"{name} is {counters[name]!r:.40}"
    for name in _BEST:
        if not _is_number(counters[name]):
            yield f"{name} is {counters[name]!r:.40}"
    rows = counters["history"]
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        yield "the history is no list of epochs"
        return
    if [row.get("epoch") for row in rows] != list(range(1, len(rows) + 1)) or len(rows) != counters["epoch"]:
        yield "the history has not one row for each epoch"
    for row in rows:
        if not all(isinstance(name, str) and _is_number(value) for name, value in row.items()):
            yield f"the history of epoch {row.get('epoch')} is {row!r:.60}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _optimizer_faults(saved: Mapping[str, Any], optimizer: Optimizer) -> Iterator[str]:
    fresh = optimizer.state_dict()
    groups, entries = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list) or not isinstance(entries, dict) or len(groups) != len(fresh["param_groups"]):
        yield "the optimiser has no state, or other groups of parameters"
        return
    for group, own in zip(groups, fresh["param_groups"]):
        if not isinstance(group, dict) or group.get("params") != own["params"]:
            yield "the optimiser has other parameters"
            return
        rate: Any = group.get("lr")
        if not _is_number(rate) or not 0 <= rate < math.inf:
            yield f"the learning rate is {rate!r:.40}"
        # another version of torch may know more of them, or fewer
        differing = [name for name in group.keys() & own.keys() - {"lr"} if group[name] != own[name]]
        if differing:
            yield f"the optimiser has another {', '.join(sorted(map(str, differing)))}"
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    forms = {frozenset(_forms(entry)) for entry in entries.values() if isinstance(entry, dict)}
    for number, entry in entries.items():
        if type(number) is not int or not 0 <= number < len(parameters) or not isinstance(entry, dict):
            yield f"the optimiser has an entry {number!r:.40}"
        elif len(forms) > 1 or not all(_fits(value, parameters[number]) for value in entry.values()):
            yield f"the state of parameter {number} is of another form"


def _forms(entry: Mapping[Any, Any]) -> Iterator[tuple[Any, bool]]:
    """The names of what is kept of a parameter, and whether it is a tensor: the same of every parameter."""
    for name, value in entry.items():
        yield name, isinstance(value, torch.Tensor)


def _fits(value: Any, parameter: torch.Tensor) -> bool:
    """Whether a value of an optimiser's state is finite, and a number or as large as its parameter."""
    if isinstance(value, torch.Tensor):
        return value.shape in (parameter.shape, torch.Size([])) and bool(value.isfinite().all())
    return value is None or isinstance(value, bool) or (_is_number(value) and math.isfinite(value))


def _schedule_faults(saved: Mapping[str, Any], fresh: Mapping[str, Any]) -> Iterator[str]:
    for name, value in saved.items():
        if not isinstance(name, str) or not _alike(value, fresh.get(name)):
            yield f"{name} of the schedule is {value!r:.40}"


def _alike(value: Any, fresh: Any) -> bool:
    """Whether a value of a schedule's state has the form of its value at the start."""
    if isinstance(fresh, list):
        return isinstance(value, list) and len(value) == len(fresh) and all(map(_alike, value, fresh))
    if isinstance(fresh, (bool, str)):
        return type(value) is type(fresh)
    if isinstance(value, list):
        return fresh is None and all(map(_is_number, value))
    number = _is_number(value) and not math.isnan(value)
    return number if fresh is not None else number or value is None
