"""The files of evaluations: what they must hold, checked before any number of them is used."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from kshot.errors import DataError
from kshot.files import read_json, refusal
from kshot.intervals import mean_interval
from kshot.measures import ACCURACY, MEASURES, QueryBalance, Statistics

_LARGEST = 1 << 28  # bytes
_COUNTS = {"ways": 1, "shots": 1, "queries": 1, "tasks": 1}  # and the least of each
_TOLERANCE = 1e-9  # of the mean and the interval, which another processor sums in another order


def checksum(content: Mapping[str, Any]) -> str:
    """What identifies the content of an evaluation's file, whatever the order of its entries."""
    plain = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> dict[str, Any]:
    """The content of an evaluation's file; DataError if it cannot be read, is damaged, or holds no evaluation."""
    try:
        content = read_json(path, limit=_LARGEST)
        faults = [*_faults(content if isinstance(content, dict) else {})]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {refusal(error)}") from error
    except (ValueError, OverflowError) as error:
        faults = [" ".join(str(error).split())]
    if faults:
        raise DataError(
            f"{path} is damaged, or not an evaluation that kshot wrote ({'; '.join(faults)}); remove it and evaluate "
            f"the run again"
        )
    return content


def _faults(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the content."""
    if "checksum" in content and content["checksum"] != checksum(content):
        yield "its checksum differs"
        return
    for name in ("learner", "adaptation"):
        if not isinstance(content.get(name), str):
            yield f"{name} is {content.get(name)!r:.40}"
    measure: Any = content.get("measure", ACCURACY.name)
    seconds: Any = content.get("seconds")
    if not isinstance(measure, str) or measure not in MEASURES:
        yield f"measure is {measure!r:.40}"
        return
    if not _is_number(seconds) or not 0 <= seconds < math.inf:
        yield f"seconds is {seconds!r:.40}"
    for name in ("own_adaptation", "transductive"):
        if type(content.get(name, True)) is not bool:
            yield f"{name} is neither true nor false"
    if content.get("precision", "float32") not in ["float32", "bf16"]:
        yield f"precision is {content['precision']!r:.40}"
    for name in ("weights", "data"):
        if not isinstance(content.get(name), (str, type(None))):
            yield f"{name} is {content[name]!r:.40}"
    protocol = content.get("protocol")
    faults = [*_protocol_faults(protocol if isinstance(protocol, dict) else {})]
    yield from faults or _value_faults(content, most=1.0 if measure == ACCURACY.name else math.inf)


def _protocol_faults(protocol: Mapping[str, Any]) -> Iterator[str]:
    for name, least in _COUNTS.items():
        if type(protocol.get(name)) is not int or protocol[name] < least:
            yield f"protocol.{name} is {protocol.get(name)!r:.40}"
    if type(protocol.get("seed")) is not int:
        yield f"protocol.seed is {protocol.get('seed')!r:.40}"
    for name in ("dataset", "split"):
        if not isinstance(protocol.get(name), str):
            yield f"protocol.{name} is {protocol.get(name)!r:.40}"
    if not isinstance(protocol.get("statistics"), str) or protocol["statistics"] not in get_args(Statistics):
        yield f"protocol.statistics is {protocol.get('statistics')!r:.40}"
    if protocol.get("query_balance", "balanced") not in list(get_args(QueryBalance)):
        yield f"protocol.query_balance is {protocol['query_balance']!r:.40}"
    if not isinstance(protocol.get("within_domain"), (bool, type(None))):
        yield f"protocol.within_domain is {protocol['within_domain']!r:.40}"
    per_domain = protocol.get("tasks_per_domain")
    if per_domain is not None and (type(per_domain) is not int or per_domain < 1):
        yield f"protocol.tasks_per_domain is {per_domain!r:.40}"


def _value_faults(content: Mapping[str, Any], most: float) -> Iterator[str]:
    """What is wrong with the values of tasks, and with the mean, interval and domains that go with them."""
    values, tasks = content.get("values", content.get("accuracies")), content["protocol"]["tasks"]
    if not isinstance(values, list) or len(values) != tasks:
        yield f"there is not one value for each of {tasks} tasks"
        return
    wrong = [value for value in values if not _is_number(value) or not 0 <= value <= most or value == math.inf]
    if wrong:
        yield f"a value is {wrong[0]!r:.40}"
        return
    summary = mean_interval(np.asarray(values, np.float64))
    for name, expected in (("mean", summary.mean), ("ci95", summary.ci95)):
        stated = content.get(name, expected)
        if not _is_number(stated) or not np.isclose(stated, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
            yield f"{name} is {stated!r:.40}, and its values have {expected}"
    domains = content.get("domains")
    if domains is not None and not (_are_texts(domains) and len(domains) == tasks):
        yield f"domains are not one name for each of {tasks} tasks"


def _are_texts(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(isinstance(one, str) for one in values)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
