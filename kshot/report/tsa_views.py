"""The views of `kshot tsa`, by name: each measures trained learners on a split, and returns a table and a picture."""

from __future__ import annotations

from collections.abc import Callable

from kshot.report.tsa_curves import accuracy_by_groups, adaptation_steps
from kshot.report.tsa_domains import group_usage, task_map
from kshot.theory.experiment import Findings

VIEWS: dict[str, Callable[..., Findings]] = {
    "steps": adaptation_steps,
    "usage": group_usage,
    "groups": accuracy_by_groups,
    "map": task_map,
}
