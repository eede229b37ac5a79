"""All adaptations on the bodies of all learners: rapid learning, or feature reuse? (W21 eqs. 6-9 and section 5).

    python benchmarks/adaptations.py runs/mtl runs/anil runs/maml --out adaptations.csv --picture adaptations.png

Each run is measured by its own way to learn a task and by every registered adaptation, on the same tasks; learners that
adapt weights lend the body of their initialisation, before any task. A dash stands for an adaptation that does not fit
the learner. The features of a frozen body are computed once for all adaptations. Settings are the defaults.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import describe_machine
from tabulate import tabulate

import kshot
from kshot.errors import ConfigError
from kshot.evaluation.results import Evaluation, compare
from kshot.files import write_csv
from kshot.learners.base import FeatureLearner
from kshot.solvers import adaptations

OWN = "own"


def measured(run: kshot.Run, names: list[str], split: str, **options: int) -> dict[str, Evaluation | None]:
    """What a run reaches by its own way, and by each of the adaptations; None for one that does not fit."""
    part = run.data.split(split)
    features = kshot.extract_features(run.learner, part) if isinstance(run.learner, FeatureLearner) else None
    results: dict[str, Evaluation | None] = {}
    for name in [OWN, *names]:
        chosen = None if name == OWN else name
        try:
            results[name] = kshot.evaluate(run.learner, part, adaptation=chosen, features=features, **options)
        except ConfigError as error:
            print(f"{run.name}, {name}: {error}")
            results[name] = None
    return results


def text_of(result: Evaluation | None, own: Evaluation | None) -> str:
    """A cell of the table: the accuracy, and in brackets the paired difference to the learner's own way."""
    if result is None:
        return "-"
    cell = result.measure.text(result.mean, result.ci95)
    if own is None or result is own or own.protocol.tasks != result.protocol.tasks:
        return cell
    difference = compare(result, own)
    return f"{cell} ({result.measure.text(difference.mean, difference.ci95, signed=True)})"


def draw(columns: dict[str, dict[str, Evaluation | None]], path: Path) -> None:
    """The accuracy of each way to learn a task on each body, coloured by its distance from the best of that body."""
    names = list(next(iter(columns.values())))
    shown = np.full((len(names), len(columns)), np.nan)
    for column, results in enumerate(columns.values()):
        shown[:, column] = [np.nan if result is None else 100 * result.mean for result in results.values()]
    figure, axes = plt.subplots(figsize=(2.2 + 0.75 * len(columns), 1.2 + 0.3 * len(names)))
    picture = axes.imshow(shown - np.nanmax(shown, axis=0), cmap="Blues_r", vmin=-25, vmax=10, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        text = "-" if np.isnan(value) else f"{value:.1f}"
        dark = picture.norm(value - np.nanmax(shown[:, column])) < 0.5
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), list(columns), rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title("Accuracy in percent; the darker, the further below the best of the column", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--adaptations", nargs="+", default=sorted(adaptations))
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="a CSV file, one line per learner and adaptation")
    parser.add_argument("--picture", type=Path, default=None, help="an image of the table")
    arguments = parser.parse_args()

    options = {name: getattr(arguments, name) for name in ("shots", "queries", "tasks", "seed")}
    columns: dict[str, list[str]] = {}
    measurements: dict[str, dict[str, Evaluation | None]] = {}
    records = []
    for folder in arguments.runs:
        run = kshot.Run(folder, root=arguments.root)
        results = measured(run, arguments.adaptations, arguments.split, **options)
        measurements[run.name] = results
        own = results[OWN]
        assert own is not None, "a learner has a way of its own"
        columns[run.name] = [text_of(result, own) for result in results.values()]
        for name, result in results.items():
            if result is not None:
                record = {"run": run.name, "learner": result.learner, "adaptation": name, "accuracy": result.mean}
                paired = compare(result, own)
                record |= {"ci95": result.ci95, "minus_own": paired.mean, "minus_own_ci95": paired.ci95}
                records.append(record | {"protocol": str(result.protocol)})
    print(describe_machine())
    print(tabulate({"": [OWN, *arguments.adaptations]} | columns, headers="keys", tablefmt="github"))
    print("\n".join(sorted({record["protocol"] for record in records})))
    if arguments.out is not None:
        write_csv(arguments.out, records)
        print(f"wrote {arguments.out}")
    if arguments.picture is not None:
        draw(measurements, arguments.picture)


if __name__ == "__main__":
    main()
