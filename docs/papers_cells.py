"""The rows of docs/papers.md that stand for cells of the papers' tables, out of published.csv and the recipes.

``python docs/papers_cells.py`` writes them into the page again; tests/test_papers.py says when that is due.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from kshot import recipes

PAGE = Path(__file__).with_name("papers.md")
BEGIN, END = "<!-- cells: written by docs/papers_cells.py -->", "<!-- end of the cells -->"
RECIPES = Path(recipes.__file__).parent
VALUES = "tests/test_recipes_published.py::test_published_values_are_those_of_the_paper_cell_by_cell"

STATES = {
    "mini-imagenet": "needs data mini-ImageNet",
    "tiered-imagenet": "needs data tiered-ImageNet",
    "cifar-fs": "needs a GPU",
    "fc100": "needs a GPU",
    "group-aircraft-bird-fungi": "needs data aircraft, CUB and fungi",
    "group-car-bird-fungi": "needs data cars, CUB and fungi",
}


def cells() -> list[str]:
    """One row per value of published.csv, and one per average over the domains of a mixture."""
    lines = ["| statement | value | file | test | state |", "|---|---|---|---|---|"]
    of_mixture: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in recipes.published_rows():
        mixture, _, domain = row["dataset"].partition("/")
        where = f"{row['paper']} {'text' if row['table'] == 'text' else 'table ' + row['table']}"
        task = f"{row['ways']}-way {row['shots']}-shot"
        what = [where, row["dataset"], task, row["learner"], row["backbone"], row["statistics"]]
        value = f"{row['accuracy']} ± {row['ci95']}" if row["ci95"] else row["accuracy"]
        path = recipe_of(mixture, row)
        lines.append(line(", ".join(filter(None, what)), value, path, VALUES, STATES[mixture]))
        if domain:
            of_mixture[where, mixture, task, row["learner"], row["backbone"], path].append(float(row["accuracy"]))
    for (*what, path), values in of_mixture.items():
        average = f"{sum(values) / len(values):.2f}"
        lines.append(line(", ".join([*what, "average"]), average, path, VALUES, STATES[what[1]]))
    return lines


def recipe_of(dataset: str, row: dict[str, str]) -> str:
    """The file of the recipe of a cell, named from the top of the repository."""
    shots, statistics = int(row["shots"]), row["statistics"] or "running"
    wanted = recipes.published(
        row["dataset"],
        ways=int(row["ways"]),
        shots=shots,
        learner=row["learner"],
        backbone=row["backbone"],
        statistics=statistics,
    )
    for name in recipes.names():
        recipe = recipes.load(name)
        if recipe.options["data"]["name"] != dataset:
            continue
        of_mtl = row["learner"] == "mtl" and name == f"mtl-{dataset}-{shots}shot"
        if of_mtl or (wanted is not None and wanted in recipe.published):
            stems = [file.stem for file in RECIPES.glob("*.yaml") if f"{name}-".startswith(f"{file.stem}-")]
            return f"src/kshot/recipes/{max(stems, key=len)}.yaml"
    raise LookupError(f"no recipe shows the value of {row}")


def line(*columns: str) -> str:
    """A row of a table in Markdown, the third and fourth column as code."""
    statement, value, path, test, state = columns
    return f"| {statement} | {value} | `{path}` | `{test}` | {state} |"


def page_with_cells(text: str) -> str:
    """The page's text with the rows of now between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", *cells(), "", END + after])


if __name__ == "__main__":
    PAGE.write_text(page_with_cells(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
