"""Recipes: one YAML file for each cell of a published table, and the published numbers themselves.

A recipe holds the options of `kshot train` by the names of its sections (data, backbone, learner, training), and under
``published`` the value that a reader wants to see beside the result. ``published.csv`` holds the tables of the papers:
W21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021).
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from kshot.errors import ConfigError

SECTIONS = ("data", "backbone", "learner", "training")


@dataclass(frozen=True)
class Published:
    """A number of a paper: accuracy and the half-width of its 95% interval, both in percent, and where it stands.

    protocol: what was measured and how, beginning with the learner and its backbone, which need not be the recipe's.
    """

    paper: str
    table: str | None
    accuracy: float
    ci95: float | None
    protocol: str

    def __str__(self) -> str:
        return f"{self.accuracy:g}" if self.ci95 is None else f"{self.accuracy:g} ± {self.ci95:g}"

    @property
    def source(self) -> str:
        """The paper, and its table where that is known."""
        return self.paper if self.table is None else f"{self.paper} table {self.table}"


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name: nested options by section, the published value, and the file as its author wrote it."""

    name: str
    options: dict[str, dict[str, Any]]
    published: Published | None
    text: str


def names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def load(name: str) -> Recipe:
    """The recipe of this name; ConfigError, with the nearest name, where there is none."""
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        near = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"there is no recipe {name!r}; {near}kshot recipes lists them all")
    text = (_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    published = content.pop("published", None)
    unknown = set(content) - set(SECTIONS)
    if unknown:
        raise ConfigError(f"recipe {name}: unknown section {', '.join(sorted(unknown))}; use {', '.join(SECTIONS)}")
    return Recipe(name, content, Published(**published) if published else None, text)


@cache
def published_rows() -> tuple[dict[str, str], ...]:
    """The rows of published.csv: paper, table, dataset, ways, shots, learner, backbone, statistics, accuracy, ci95."""
    with (_folder() / "published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def published(
    dataset: str, ways: int, shots: int, learner: str, backbone: str, statistics: str = "running"
) -> Published | None:
    """The published accuracy of a learner with a backbone such as "resnet12" or "conv4-32", or None.

    A row of a paper that names no statistics counts as "running".
    """
    wanted = (dataset, str(ways), str(shots), learner, backbone, statistics)
    for row in published_rows():
        at = (row["dataset"], row["ways"], row["shots"], row["learner"], row["backbone"])
        if (*at, row["statistics"] or "running") == wanted:
            statistics = row["statistics"] or "running"
            protocol = f"{learner} with {backbone}, {ways}-way {shots}-shot, {statistics} statistics"
            ci95 = float(row["ci95"]) if row["ci95"] else None
            return Published(row["paper"], row["table"], float(row["accuracy"]), ci95, protocol)
    return None


def _folder() -> Any:
    return resources.files("kshot.recipes")
