"""The page about several runs, and which of them differ only in their seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kshot.files import write_text
from kshot.report.content import RunContent
from kshot.runs.config import free_on_resume


def write_page(contents: Sequence[RunContent], out: Path) -> Path:
    """Write one self-contained HTML page about runs; returns its path."""
    from kshot.report.page import page  # and matplotlib, for which other commands need not wait

    write_text(out, page(contents, seed_groups=seed_groups(contents)))
    return out


def seed_groups(contents: Sequence[RunContent]) -> list[list[int]]:
    """Positions of runs that differ only in their training seed, for every such group of two seeds or more.

    Options that a continued run may change make no difference. Of several runs with one seed the first one counts.
    """
    groups: dict[str, dict[int, int]] = defaultdict(dict)
    for position, content in enumerate(contents):
        training = dict(content.config["training"])
        seed, ignored = training["seed"], {"seed", *free_on_resume(training)}
        compared = {name: value for name, value in training.items() if name not in ignored}
        groups[json.dumps(dict(content.config) | {"training": compared}, sort_keys=True)].setdefault(seed, position)
    return [list(members.values()) for members in groups.values() if len(members) > 1]
