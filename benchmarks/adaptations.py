"""All adaptations on the bodies of all learners: rapid learning, or feature reuse? (W21 eqs. 6-9 and section 5).

    python benchmarks/adaptations.py runs/mtl runs/anil runs/maml --shots 5 --tasks 600 --out adaptations.csv

Each run is measured by its own way to learn a task and by every registered adaptation, on the same tasks; learners that
adapt weights lend the body of their initialisation, before any task. A dash stands for an adaptation that does not fit
the learner. The features of a frozen body are computed once for all adaptations. Settings are the defaults.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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
    arguments = parser.parse_args()

    options = {name: getattr(arguments, name) for name in ("shots", "queries", "tasks", "seed")}
    columns, records = {}, []
    for folder in arguments.runs:
        run = kshot.Run(folder, root=arguments.root)
        results = measured(run, arguments.adaptations, arguments.split, **options)
        columns[run.name] = [text_of(result, results[OWN]) for result in results.values()]
        for name, result in results.items():
            if result is not None:
                record = {"run": run.name, "learner": result.learner, "adaptation": name, "accuracy": result.mean}
                records.append(record | {"ci95": result.ci95, "protocol": str(result.protocol)})
    print(describe_machine())
    print(tabulate({"": [OWN, *arguments.adaptations]} | columns, headers="keys", tablefmt="github"))
    print("\n".join(sorted({record["protocol"] for record in records})))
    if arguments.out is not None:
        write_csv(arguments.out, records)
        print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
