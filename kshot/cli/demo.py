"""`kshot demo`: train three learners on glyphs and compare them, and an untrained network, on unseen scripts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kshot import data as datasets
from kshot.backbones import Conv4
from kshot.cli.options import ROOT_TEXT, Options
from kshot.data import Dataset, EpisodeSampler, TaskShape
from kshot.data.augmentation import prepare_images
from kshot.evaluation import Evaluation, evaluate, evaluating, extract_features
from kshot.files import write_text
from kshot.learners import FeatureLearner, MultiTask, ProtoNet, Supervised
from kshot.report import pictures
from kshot.report.runs import save_evaluation, weights_of
from kshot.report.tables import Row, table
from kshot.training import train

_TASKS = 1000
_SHOTS = (1, 5)
# An epoch is 10,000 images for each of them: 30,000 images take a CPU of two cores less than 20 seconds.
_TRAINING: dict[str, dict[str, Any]] = {
    "mtl": {"ways": 50, "shots": 1, "queries": 1, "meta_batch": 1, "tasks_per_epoch": 100},
    "supervised": {"meta_batch": 100, "tasks_per_epoch": 10_000},
    "protonet": {"ways": 20, "shots": 5, "queries": 5, "meta_batch": 1, "tasks_per_epoch": 50},
}
_LEARNING_RATE = 0.01
_LEARNERS: dict[str, type[FeatureLearner]] = {"mtl": MultiTask, "supervised": Supervised, "protonet": ProtoNet}
_VALIDATION: dict[str, Any] = {"validation_ways": 5, "validation_shots": 5, "validation_tasks": 200}


@dataclass(frozen=True)
class Contestant:
    """A learner of the demo and its row of the table."""

    learner: FeatureLearner
    row: Row


def run(arguments: Sequence[str]) -> None:
    """Train, evaluate, print the table, write the picture."""
    options = Options(
        "kshot demo",
        "Train multi-task learning, the supervised control and ProtoNet (Conv4-64) on characters that are drawn from\n"
        "fonts, and compare all three and an untrained network on 1000 tasks of scripts that training never saw.\n"
        "Takes about two minutes on two cores and downloads nothing.",
        ["kshot demo", "kshot demo --out somewhere --seed 1"],
    )
    options.add("--out", Path, Path("demo"), "folder for runs, table.txt and task.png")
    options.add("--seed", int, 0, "of the initial weights, the training tasks and the test tasks")
    options.add("--epochs", int, 3, "epochs of each training, of 10,000 images")
    options.add("--root", Path | None, None, ROOT_TEXT)
    given = options.parse(arguments)
    started = time.perf_counter()
    print("1/3  preparing glyphs: characters in 8 typefaces, split by script")
    data = datasets.load("glyphs", given.root)
    parts = ", ".join(f"{split.num_classes} {split.name}" for split in (data.train, data.val, data.test))
    scripts = ", ".join(sorted(set(data.test.groups)))
    print(f"     {parts} characters; the test scripts, {scripts}, never occur in training")
    print("2/3  training, and measuring on the same tasks")
    contestants = {name: _trained(name, data, given.seed, given.epochs, given.out) for name in _TRAINING}
    contestants["untrained"] = _untrained(data, given.seed)
    print("3/3  drawing one task")
    picture = _picture(contestants["mtl"].learner, data, given.seed)
    rows = [contestant.row for contestant in contestants.values()]
    text = f"{table(rows, paired=True)}\nTraining seed {given.seed}; Conv4-64 throughout."
    write_text(given.out / "table.txt", text + "\n")
    print(f"\n{text}\n")
    print(f"picture  {pictures.save(picture, given.out / 'task.png')}")
    print(f"runs     {given.out}/mtl, supervised, protonet")
    print(f"time     {time.perf_counter() - started:.0f} s")
    print(f"next     kshot evaluate {given.out}/mtl --adaptation ridge")


def _trained(name: str, data: Dataset, seed: int, epochs: int, out: Path) -> Contestant:
    learner = _new(name, data, seed)
    run = out / name
    _forget(run)
    options = {**_TRAINING[name], **_VALIDATION, "learning_rate": _LEARNING_RATE, "patience": 0}
    result = train(learner, data, max_epochs=epochs, seed=seed, run=run, **options)
    row = Row(name, _evaluations(learner, data, seed, run), seconds=result.seconds)
    accuracy = f"{100 * row.results[-1].mean:.1f} % at {_SHOTS[-1]} shots"
    print(f"     {name}: {accuracy} after {result.seconds:.0f} s of training")
    return Contestant(learner, row)


def _untrained(data: Dataset, seed: int) -> Contestant:
    learner = _new("mtl", data, seed)
    return Contestant(learner, Row("untrained", _evaluations(learner, data, seed, None)))


def _new(name: str, data: Dataset, seed: int) -> FeatureLearner:
    torch.manual_seed(seed)
    channels, size, _ = data.train.image_shape
    options: Mapping[str, Any] = {} if name == "protonet" else {"num_classes": data.train.num_classes}
    if name == "mtl":
        options = {**options, "ways": _TRAINING["mtl"]["ways"]}
    return _LEARNERS[name](Conv4(64, in_channels=channels, image_size=size), **options)


def _evaluations(learner: FeatureLearner, data: Dataset, seed: int, run: Path | None) -> list[Evaluation]:
    features = extract_features(learner, data.test)
    results = []
    for shots in _SHOTS:
        results.append(evaluate(learner, data.test, shots=shots, tasks=_TASKS, seed=seed, features=features))
        if run is not None:
            save_evaluation(run, results[-1], weights_of(run))
    return results


def _forget(run: Path) -> None:
    """The demo starts anew each time; what an earlier one left would be refused as a trained run."""
    for file in [*run.glob("checkpoints/*.pt"), *run.glob("evaluation/*.json")]:
        file.unlink()


@torch.no_grad()
def _picture(learner: FeatureLearner, data: Dataset, seed: int) -> pictures.Figure:
    """The task of median accuracy among 101 at one shot, whose mistakes say more than those at five."""
    shape = TaskShape(5, 1, 10)
    accuracies = evaluate(learner, data.test, shape.ways, shape.shots, shape.queries, tasks=101, seed=seed).accuracies
    median = np.argsort(accuracies, kind="stable")[50:51]
    device = next(learner.parameters()).device
    episodes = EpisodeSampler(data.test, shape, seed).episodes(median, device)
    seen = prepare_images(episodes, data.test.normalization)
    with evaluating(learner, "float32"):
        predicted = learner.scores(seen)[0].argmax(-1).cpu().numpy()
    names = [data.test.class_names[position].lower() for position in episodes.classes[0].tolist()]
    title = "Multi-task learning, one example of each unseen character: a task of median accuracy"
    return pictures.task_picture(episodes, names, predicted, title)
