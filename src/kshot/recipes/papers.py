"""The published numbers, by the names that papers give to learners and backbones.

``published.csv`` holds numbers of two papers: W21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021). Its
column ``table`` has the number of a table, or "text" for a number that stands in the text.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

_RESNET_WIDTHS = [64, 160, 320, 640]  # of the networks that the papers call by their plain names
_UNNAMED = ("running", "transductive")  # the statistics of values whose papers do not say which they use
_QUOTED_HEADS = {"cifar-fs": "ridge"}  # of MetaOptNet in W21; on all other datasets it is the SVM
_DOMAIN_TASKS = 600  # test tasks of each domain of a mixture in Z21, whose averages are means over domains


@dataclass(frozen=True)
class Published:
    """A number of a paper, and where it stands.

    Attributes
    ----------
    paper
        "W21", "Z21" or another paper.
    table
        The number of the table, "text", or None if that is not known.
    accuracy
        In percent.
    ci95
        Half-width of the 95% interval, in percent; None if the paper has none.
    protocol
        What was measured and how, beginning with the learner and its backbone, which need not be the recipe's.
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
        """The paper, and its table or "text" if that is known."""
        if self.table is None:
            return self.paper
        return f"{self.paper} {self.table if self.table == 'text' else f'table {self.table}'}"


@cache
def published_rows() -> tuple[dict[str, str], ...]:
    """The rows of published.csv: paper, table, dataset, ways, shots, learner, backbone, statistics, accuracy, ci95."""
    text = resources.files("kshot.recipes").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def published(
    dataset: str,
    *,
    ways: int,
    shots: int,
    learner: str,
    backbone: str,
    statistics: str = "running",
    tables: Collection[str] = (),
) -> Published | None:
    """The published accuracy of a learner with a backbone such as "resnet12" or "conv4-32", or None.

    Parameters
    ----------
    dataset
        Name of the dataset, with "/" and a domain for one domain of a mixture.
    ways, shots
        Shape of the tasks at test.
    learner, backbone
        As papers call them: `learner_in_papers`, `backbone_in_papers`.
    statistics
        Where BatchNorm statistics come from at test. A row that names none counts as "running", and as "transductive"
        if no other row names these.
    tables
        The tables that count, such as "Z21 table 2"; empty for all.
    """
    wanted = (dataset, str(ways), str(shots), learner, backbone)
    rows = [row for row in published_rows() if _cell(row) == wanted]
    rows = [row for row in rows if not tables or _value(row).source in tables]
    named = [row for row in rows if row["statistics"] == statistics]
    unnamed = [row for row in rows if not row["statistics"] and statistics in _UNNAMED]
    return _value([*named, *unnamed][0]) if named or unnamed else None


def published_in(
    source: str, dataset: str, *, ways: int, shots: int, learner: str, backbone: str
) -> tuple[Published, ...]:
    """All values of one cell of a table: of every kind of statistics and domain of a mixture.

    Parameters
    ----------
    source
        The table, such as "Z21 table 2".
    dataset, ways, shots, learner, backbone
        The cell, as for `published`.
    """
    wanted = (dataset, str(ways), str(shots), learner, backbone)
    rows = [row for row in published_rows() if (row["dataset"].split("/")[0], *_cell(row)[1:]) == wanted]
    return tuple(value for value in map(_value, rows) if value.source == source)


def learner_in_papers(section: Mapping[str, Any], dataset: str) -> str | None:
    """What papers call the learner of these options in what they report of a dataset.

    Parameters
    ----------
    section
        The learner's options, with its name among them.
    dataset
        The dataset that a paper reports on.

    Returns
    -------
    The learner's name, or None for a variant that no paper has.
    """
    name = section["name"]
    if name == "metaoptnet" and section.get("head", "svm") != _QUOTED_HEADS.get(dataset, "svm"):
        return None
    if name == "matching-net" and section.get("scale") is not None:  # that of mtl is in recipes for the paper's table
        return None
    if section.get("layers", "all") != "all" or section.get("learn_rates", False):
        return None
    if section.get("first_order", False):
        return "fomaml" if name == "maml" else None
    return name


def backbone_in_papers(section: Mapping[str, Any]) -> str | None:
    """What papers call the backbone of a recipe's `section`: its name and options; None for one that no paper has."""
    if section.get("name") == "conv4":
        return f"conv{section.get('blocks', 4)}-{section.get('width', 64)}"
    if list(section.get("widths", _RESNET_WIDTHS)) != _RESNET_WIDTHS:
        return None
    return section.get("name")


def _cell(row: Mapping[str, str]) -> tuple[str, str, str, str, str]:
    return row["dataset"], row["ways"], row["shots"], row["learner"], row["backbone"]


def _value(row: Mapping[str, str]) -> Published:
    domain = row["dataset"].partition("/")[2]
    tasks = f", {_DOMAIN_TASKS} tasks of {domain}" if domain else ""
    statistics = f", {row['statistics']} statistics" if row["statistics"] else ""
    protocol = f"{row['learner']} with {row['backbone']}, {row['ways']}-way {row['shots']}-shot{tasks}{statistics}"
    ci95 = float(row["ci95"]) if row["ci95"] else None
    return Published(row["paper"], row["table"], float(row["accuracy"]), ci95, protocol)
