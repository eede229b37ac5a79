"""`kshot recipes`: what can be reproduced, and the numbers to expect."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from kshot import recipes
from kshot.cli.options import Options


def run(arguments: Sequence[str]) -> None:
    """List the recipes with their published values, or print the YAML of one.

    Examples
    --------
    kshot recipes
    kshot recipes maml-cifar-fs
    kshot recipes maml-cifar-fs-5way-1shot
    kshot train --recipe mtl-cifar-fs-5shot --set training.seed=1
    """
    options = Options.of("kshot recipes", run, positional="[NAME]")
    text = "the recipe to print, or what the names of those to list begin with; without it all are listed"
    options.add("name", str | None, text=text, nargs="?")
    name = options.parse(arguments).name or ""
    family = [other for other in recipes.names() if other.startswith(name)]
    if name and (name in family or not family):
        print(recipes.load(name).text, end="")
        return
    rows = []
    for recipe in map(recipes.load, family):
        named = [recipe.name, recipe.options["backbone"]["name"]]
        described = [[value, f"{value.protocol}; {value.source}"] for value in recipe.published] or [["", ""]]
        rows += [[*(named if number == 0 else ["", ""]), *texts] for number, texts in enumerate(described)]
    headers = ["recipe", "backbone", "published, %", "of what, and where"]
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))
    for file, error in recipes.damaged().items():
        if file.startswith(name):
            print(f"\ndamaged: {error}")
    print("\nW21 is Wang, Zhao and Li (ICML 2021), Z21 is Zhou et al. (UAI 2021).")
    print("Train a recipe with: kshot train --recipe NAME; those of tsa-maml with: kshot tsa train --recipe NAME")
