"""How good a classifier of photographs is, and whether what it says of itself is true: every table of the guide.

    python benchmarks/photo_features.py CACHE --groceries DIR --cifar-fs ROOT --groups DIR
    python benchmarks/photo_answers.py CACHE accuracy trust estimates curve smallest

The features are those of EfficientNet-Lite0. Settings were chosen on other classes: power, views, C and familiarity on
the CIFAR-FS validation classes and butterflies, the cosine of a series on groceries with even numbers, so that what
concerns series is measured on those with odd numbers. Groceries: examples of the train part, answers on the test part,
which was taken at other times. Each measurement has a seed of its own; intervals are 95 %, over tasks; differences are
paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from photo_tasks import (
    CIFAR,
    HEAD,
    Photos,
    Task,
    accuracy_of,
    cifar,
    compared,
    drawn,
    evidence,
    groceries,
    head_scores,
    scores,
    shown,
    without_even,
)
from sklearn.linear_model import LogisticRegression as ScikitLearn
from sklearn.metrics import roc_auc_score

from kshot.photos import expected_calibration_error
from kshot.photos.heads import balanced_head
from kshot.photos.rejection import familiarity, sets_of
from kshot.solvers import LogisticRegression


def accuracy(cache: Path, tasks: int) -> None:
    """Accuracy with 1 and 5 examples of each of 5 classes, 15 new photographs per class."""
    for name, (old, new) in compared(cache).items():
        for shots in (1, 5):
            generator, results = np.random.default_rng(0), {}
            for _ in range(tasks):
                task = drawn(old, new, generator, [shots] * 5)
                answers = _rivals(old, new, task)
                if name == CIFAR and (cache / "cifar_test_run.npz").exists():
                    answers["FewShotClassifier on the run"] = _by_run(cache, task)
                for rival, said in answers.items():
                    results.setdefault(rival, []).append(accuracy_of(said, task.truth))
            reference = np.array(results["scikit-learn, C = 10"])
            for rival, values in results.items():
                print(
                    f"{name}, {shots} shots, {rival}: {shown(values)}; difference {shown(values - reference, 2)}",
                    flush=True,
                )


def _rivals(old: Photos, new: Photos, task: Task) -> dict[str, NDArray[np.int64]]:
    """Answers (M,) of each: the same examples, the same new photographs."""
    answers = {"FewShotClassifier": scores(old, new, task).argmax(1)}
    answers["without augmentation"] = head_scores(old.plain[task.examples], task.labels, new.plain[task.new]).argmax(1)
    for label, c, (examples, asked) in (
        ("scikit-learn, C = 10", 10.0, (old.raw, new.raw)),
        ("scikit-learn, C = 1 (its default)", 1.0, (old.raw, new.raw)),
        ("raw pixels, scikit-learn, C = 10", 10.0, (old.pixels, new.pixels)),
    ):
        model = ScikitLearn(C=c, max_iter=1000).fit(examples[task.examples].numpy(), task.labels)
        answers[label] = model.predict(asked[task.new].numpy())
    return answers


def _by_run(cache: Path, task: Task) -> NDArray[np.int64]:
    """Answers (M,) of a classifier on features of a trained run, with the head of MTL (Wang et al. 2021)."""
    features = torch.from_numpy(np.load(cache / "cifar_test_run.npz")["view_plain"])
    head = balanced_head(LogisticRegression(), features[None, task.examples], torch.from_numpy(task.labels)[None], 5)
    return head.scores(features[None, task.new])[0].argmax(1).numpy()


def trust(cache: Path, tasks: int) -> None:
    """Estimate, calibration, refusals, sets and wrong labels: 5 classes of 5 examples, 5 further classes unknown."""
    old, new = groceries(cache)
    odd = [without_even(part) for part in (old, new)]
    for name, (examples, asked) in {"groceries": odd, "CIFAR-FS test classes": cifar(cache)}.items():
        generator, rows = np.random.default_rng(1), {}
        for number in range(tasks):
            task = drawn(examples, asked, generator, [5] * 5, unknown=5)
            for key, value in _trusted(examples, asked, task, number).items():
                rows.setdefault(key, []).append(value)
        for key, values in rows.items():
            print(f"{name}, {key}: {shown(values, 2)}", flush=True)


def _trusted(old: Photos, new: Photos, task: Task, number: int) -> dict[str, float]:
    known = task.truth < 5
    every = scores(old, new, task)
    told, truth = evidence(old, task), task.truth[known]
    probabilities = told.probabilities(every)
    features = old.plain if old.augmented is None else old.augmented
    asked, support = new.plain[task.new][None], features[task.examples][None]
    familiar = familiarity(asked, support, torch.from_numpy(task.labels)[None])[0].double().numpy()
    estimate, single = told.estimate(), evidence(old, task, cosine=None).estimate()
    right = accuracy_of(every[known].argmax(1), truth)
    result = {
        "accuracy": right,
        "estimate": 100 * estimate.accuracy,
        "estimate, every example a series": 100 * single.accuracy,
        "accuracy within the interval": 100 * (estimate.low <= right / 100 <= estimate.high),
        "accuracy within the interval, every example a series": 100 * (single.low <= right / 100 <= single.high),
        "series per class": len(told.examples.series.unique()) / 5,
        "calibration error before": expected_calibration_error(_softmax(every[known]), truth),
        "calibration error after": expected_calibration_error(probabilities[known], truth),
        "AUROC of familiarity": 100 * _auroc(familiar, known),
        "AUROC of the largest probability": 100 * _auroc(probabilities.max(1), known),
    }
    refused = familiar < told.lowest_familiarity(0.05)
    result |= {"known refused": 100 * refused[known].mean(), "unknown accepted": 100 * (~refused[~known]).mean()}
    for coverage in (0.8, 0.9):
        inside = sets_of(probabilities[known], told.largest_rank(coverage))
        result[f"sets of {coverage}: coverage"] = 100 * inside[np.arange(len(truth)), truth].mean()
        result[f"sets of {coverage}: classes"] = inside.sum(1).mean()
    generator = np.random.default_rng(number)
    wrong = int(generator.integers(25))
    labels = task.labels.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 5)) % 5
    mislabelled = evidence(old, Task(task.examples, labels, task.new, task.truth)).verdicts()
    place = [verdict.number for verdict in mislabelled].index(wrong)
    return result | {"wrong label first": 100 * (place == 0), "wrong label among the first three": 100 * (place < 3)}


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return torch.from_numpy(logits).softmax(1).numpy()


def _auroc(values: NDArray[np.float64], known: NDArray[np.bool_]) -> float:
    """How often a known one has a larger value than an unknown one."""
    return float(roc_auc_score(known, values))


def estimates(cache: Path, tasks: int) -> None:
    """The estimate against the accuracy on photographs like the examples, and on those of other days.

    Groceries with odd numbers: photographs like the examples are the rest of the train part. CIFAR-FS: the rest of each
    class. The width of the interval was chosen on groceries with even numbers.
    """
    train, test = [without_even(part) for part in groceries(cache)]
    cifar_test, _ = cifar(cache)
    for name, old, other, settings in (
        ("groceries", train, test, ((2, 5, tasks), (5, 3, tasks), (5, 5, tasks), (5, 8, tasks), (20, 5, tasks // 5))),
        (CIFAR, cifar_test, None, ((5, 5, tasks), (20, 5, tasks // 5))),
    ):
        for ways, shots, count in settings:
            generator, rows = np.random.default_rng(2), {}
            for _ in range(count):
                task = drawn(old, old if other is None else other, generator, [shots] * ways, queries=60)
                told = evidence(old, task).estimate()
                single = evidence(old, task, cosine=None).estimate()
                rows.setdefault("estimate", []).append(100 * told.accuracy)
                rows.setdefault("estimate, every example a series", []).append(100 * single.accuracy)
                asked = {"photographs like the examples": (old, _like_examples(old, task))}
                asked |= {} if other is None else {"other days": (other, task)}
                for label, (new, questions) in asked.items():
                    answers = scores(old, new, questions).argmax(1)
                    right = accuracy_of(answers, questions.truth)
                    low, high = (round(100 * end) for end in (told.low, told.high))  # as they are shown
                    rows.setdefault(label, []).append(right)
                    rows.setdefault(f"{label}, within", []).append(100 * (low <= round(right) <= high))
                    rows.setdefault(f"{label}, below", []).append(100 * (round(right) < low))
                    of_class = [100 * np.mean(answers[questions.truth == way] == way) for way in range(ways)]
                    lines = zip(of_class, told.classes)
                    inside = [round(100 * each.low) <= round(one) <= round(100 * each.high) for one, each in lines]
                    rows.setdefault(f"{label}, classes within", []).append(100 * np.mean(inside))
            if other is not None:
                rows["lower on other days"] = np.subtract(rows["photographs like the examples"], rows["other days"])
                rows["estimate less other days"] = np.subtract(rows["estimate"], rows["other days"])
            print(
                f"{name}, {ways} classes, {shots} examples, {count} draws:",
                *(f"{label} {shown(values)};" for label, values in rows.items()),
                flush=True,
            )


def _like_examples(old: Photos, task: Task) -> Task:
    """The same task, asked for the photographs of its classes that lie next to the examples."""
    of_way = [task.examples[task.labels == way] for way in range(task.labels.max() + 1)]
    rest = [np.setdiff1d(next(each for each in old.rows if rows[0] in each), rows)[:60] for rows in of_way]
    return replace(task, new=np.concatenate(rest), truth=np.repeat(np.arange(len(rest)), list(map(len, rest))))


def curve(cache: Path, tasks: int) -> None:
    """Shots needed for 90 %, told from 10 examples of each of 5 classes, against the curve of many photographs."""
    test, _ = cifar(cache)
    generator, rows = np.random.default_rng(3), []
    for _ in range(tasks):
        task = drawn(test, test, generator, [100] * 5, queries=40)
        grid, place = [1, 2, 3, 5, 8, 13, 20, 32, 50, 100], np.tile(np.arange(100), 5)
        truth = []
        for shots in grid:
            few = place < shots
            answers = head_scores(test.plain[task.examples[few]], task.labels[few], test.plain[task.new]).argmax(1)
            truth.append(accuracy_of(answers, task.truth) / 100)
        few = place < 10
        told = evidence(test, Task(task.examples[few], task.labels[few], task.new, task.truth)).shots_needed(0.9)
        reached = np.flatnonzero(np.maximum.accumulate(truth) >= 0.9)
        needed = np.inf if not len(reached) else grid[reached[0]]
        low, high = (np.inf if value is None else value for value in (told.low, told.high))
        below = 0 if not len(reached) or reached[0] == 0 else grid[reached[0] - 1]
        said = np.inf if told.shots is None else told.shots
        # the truth is known to lie above `below`, and at `needed` at most
        rows.append((needed, said, low, high, high > below and low <= needed))
        print(f"needed {needed} (more than {below}), said {said}, {low} to {high}", flush=True)
    inside = [100 * row[4] for row in rows]
    within_two = [100 * (row[0] / 2 <= row[1] <= 2 * row[0]) for row in rows if np.isfinite(row[0])]
    print(f"in the interval: {shown(inside)}; median within a factor of two, of those reached: {shown(within_two)}")


def smallest(cache: Path, tasks: int) -> None:
    """Recall of a class with few examples, where four others have 10, on CIFAR-FS test classes."""
    test, _ = cifar(cache)
    for size in (1, 2, 3, 5, 10, 20):
        generator, rows = np.random.default_rng(4), {}
        for _ in range(tasks):
            task = drawn(test, test, generator, [size, 10, 10, 10, 10])
            own, features = task.truth == 0, test.plain[task.examples]
            rows.setdefault("kshot", []).append(100 * np.mean(scores(test, test, task)[own].argmax(1) == 0))
            plain = HEAD.head(features[None], torch.from_numpy(task.labels)[None], 5)
            answers = plain.scores(test.plain[task.new][None])[0].argmax(1).numpy()
            rows.setdefault("unbalanced", []).append(100 * np.mean(answers[own] == 0))
            few = np.concatenate([np.flatnonzero(task.labels == way)[:size] for way in range(5)])
            fair = head_scores(features[few], task.labels[few], test.plain[task.new][own]).argmax(1)
            rows.setdefault("equally few of each", []).append(100 * np.mean(fair == 0))
        print(f"{size}, 10, 10, 10, 10:", *(f"{key} {shown(values)};" for key, values in rows.items()), flush=True)


MEASUREMENTS: dict[str, Callable[[Path, int], None]] = {
    "accuracy": accuracy,
    "trust": trust,
    "estimates": estimates,
    "curve": curve,
    "smallest": smallest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="what photo_features.py wrote")
    parser.add_argument("measurements", nargs="+", choices=MEASUREMENTS)
    parser.add_argument("--tasks", type=int, default=200)
    options = parser.parse_args()
    for name in options.measurements:
        MEASUREMENTS[name](options.cache, options.tasks)


if __name__ == "__main__":
    main()
