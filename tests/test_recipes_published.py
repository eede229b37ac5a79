"""The values of the papers, cell by cell, against a list that was typed a second time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tabulate import tabulate

from kshot import recipes


def test_published_rows():
    assert len(recipes.published_rows()) == 195
    assert str(recipes.published("cifar-fs", ways=5, shots=5, learner="mtl", backbone="resnet12")) == "84.1 ± 0.1"
    one_shot = {"ways": 5, "shots": 1, "learner": "maml", "backbone": "conv4-32"}
    assert recipes.published("cifar-fs", **one_shot, statistics="transductive").paper == "Z21"
    assert str(recipes.published("mini-imagenet", **one_shot, statistics="transductive")) == "48.7 ± 1.84"
    assert recipes.published("mini-imagenet", **one_shot, statistics="inductive") is None
    assert recipes.published("cifar-fs", ways=5, shots=5, learner="mtl", backbone="conv4-64") is None


def printed(paper: str, table: str, dataset: str, head: list[str]) -> list[list[str]]:
    """The rows of published.csv as the lines of a table with these columns."""
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in recipes.published_rows():
        name, _, domain = row["dataset"].partition("/")
        if (row["paper"], row["table"], name) == (paper, table, dataset):
            kind = (row["learner"], row["backbone"], row["statistics"] or "-")
            column = f"{domain} {row['ways']}-way {row['shots']}-shot".strip()
            cells = lines.setdefault(kind, {})
            assert column in head, f"{column} is a column that the paper does not have"
            assert column not in cells, f"{kind} has two values for {column}"
            cells[column] = row["accuracy"] + (f" ± {row['ci95']}" if row["ci95"] else "")
    return [[*kind, *(cells.get(column, "-") for column in head[3:])] for kind, cells in lines.items()]


def tables_of_the_papers() -> dict[tuple[str, ...], str]:
    """The text of each table by paper, number and dataset; the file's first lines say how it is laid out."""
    text = (Path(__file__).parent / "published_values.txt").read_text(encoding="utf-8")
    _, *parts = re.split(r"^\[(.*)\]\n", text, flags=re.MULTILINE)
    return {tuple(title.split(" | ")): table.strip() for title, table in zip(parts[::2], parts[1::2])}


TABLES = tables_of_the_papers()


@pytest.mark.parametrize("key", TABLES)
def test_published_values_are_those_of_the_paper_cell_by_cell(key):
    text = TABLES[key]
    head, *typed = (re.split(r"\s{2,}", line) for line in text.splitlines())
    shipped = printed(*key, head)
    wrong = [
        f"{' '.join(mine[:3])}, {column}: {mine[position]} in published.csv, {theirs[position]} in the paper"
        for mine, theirs in zip(sorted(shipped), sorted(typed))
        for position, column in enumerate(head)
        if mine[position] != theirs[position]
    ]
    shown = tabulate(shipped, head, "plain", disable_numparse=True)
    print("\n".join(["", " | ".join(key), "published.csv:", shown, "", "published_values.txt:", text]))
    assert sorted(shipped) == sorted(typed), "\n".join(wrong)


def test_every_published_value_is_held_against_the_second_list():
    tables = {(row["paper"], row["table"], row["dataset"].partition("/")[0]) for row in recipes.published_rows()}
    assert tables == TABLES.keys()
