"""`kshot recipes`: what can be reproduced, and the numbers to expect."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from kshot import recipes
from kshot.cli.options import Options


def run(arguments: Sequence[str]) -> None:
    """List all recipes, or print the file of one."""
    options = Options(
        "kshot recipes",
        "List the recipes with their published values, or print the YAML file of one.",
        [
            "kshot recipes",
            "kshot recipes mtl-cifar-fs-5shot",
            "kshot train --recipe mtl-cifar-fs-5shot --set training.seed=1",
        ],
        positional="[NAME]",
    )
    options.add("name", str | None, None, "the recipe to print; all are listed without it", nargs="?")
    name = options.parse(arguments).name
    if name is not None:
        print(recipes.load(name).text, end="")
        return
    rows = []
    for recipe in map(recipes.load, recipes.names()):
        named = [recipe.name, recipe.options["backbone"]["name"]]
        described = [[value, f"{value.protocol}; {value.source}"] for value in recipe.published] or [["", ""]]
        rows += [[*(named if i == 0 else ["", ""]), *texts] for i, texts in enumerate(described)]
    headers = ["recipe", "backbone", "published, %", "of what, and where"]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    print("\nW21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021).")
    print("Train a recipe with: kshot train --recipe NAME")
