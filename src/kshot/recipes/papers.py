"""The published numbers, by the names that papers give to learners and backbones.

``published.csv`` holds the tables of two papers: W21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_RESNET_WIDTHS = [64, 160, 320, 640]  # of the networks that the papers call by their plain names
_UNNAMED = ("running", "transductive")  # what learners take their statistics from where their papers do not say
_QUOTED_HEADS = {"cifar-fs": "ridge"}  # of MetaOptNet in W21; on all other datasets it is the SVM


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


@cache
def published_rows() -> tuple[dict[str, str], ...]:
    """The rows of published.csv: paper, table, dataset, ways, shots, learner, backbone, statistics, accuracy, ci95."""
    text = resources.files("kshot.recipes").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published(
    dataset: str, ways: int, shots: int, learner: str, backbone: str, statistics: str = "running"
) -> Published | None:
    """The published accuracy of a learner with a backbone such as "resnet12" or "conv4-32", or None.

    A row that names no statistics counts as "running", and as "transductive" where no other row names these.
    """
    wanted = (dataset, str(ways), str(shots), learner, backbone)
    rows = [row for row in published_rows() if _cell(row) == wanted]
    named = [row for row in rows if row["statistics"] == statistics]
    unnamed = [row for row in rows if not row["statistics"] and statistics in _UNNAMED]
    return _value([*named, *unnamed][0]) if named or unnamed else None


def published_in(
    source: str, dataset: str, ways: int, shots: int, learner: str, backbone: str
) -> tuple[Published, ...]:
    """All values of one cell of a table such as "Z21 table 2": of every kind of statistics and domain of a mixture."""
    wanted = (dataset, str(ways), str(shots), learner, backbone)
    rows = [row for row in published_rows() if (row["dataset"].split("/")[0], *_cell(row)[1:]) == wanted]
    return tuple(value for value in map(_value, rows) if value.source == source)


def learner_in_papers(section: Mapping[str, Any], dataset: str) -> str | None:
    """What papers call the learner of these options, its name among them, in what they report of a dataset.

    None for a variant that none of them has.
    """
    name = section["name"]
    if name == "metaoptnet" and section.get("head", "svm") != _QUOTED_HEADS.get(dataset, "svm"):
        return None
    if section.get("layers", "all") != "all" or section.get("learn_rates", False):
        return None
    if section.get("first_order", False):
        return "fomaml" if name == "maml" else None
    return name


def backbone_in_papers(section: Mapping[str, Any]) -> str | None:
    """What papers call the backbone of these options, its name among them; None for one that none of them has."""
    if section.get("name") == "conv4":
        return f"conv{section.get('blocks', 4)}-{section.get('width', 64)}"
    if list(section.get("widths", _RESNET_WIDTHS)) != _RESNET_WIDTHS:
        return None
    return section.get("name")


def _cell(row: Mapping[str, str]) -> tuple[str, str, str, str, str]:
    return row["dataset"], row["ways"], row["shots"], row["learner"], row["backbone"]


def _value(row: Mapping[str, str]) -> Published:
    domain = row["dataset"].partition("/")[2]
    of = f" of {domain}" if domain else ""
    statistics = f", {row['statistics']} statistics" if row["statistics"] else ""
    protocol = f"{row['learner']} with {row['backbone']}, {row['ways']}-way {row['shots']}-shot{of}{statistics}"
    ci95 = float(row["ci95"]) if row["ci95"] else None
    return Published(row["paper"], row["table"], float(row["accuracy"]), ci95, protocol)
