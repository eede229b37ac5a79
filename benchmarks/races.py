"""Variants of a training at equal numbers of images, judged on the validation classes; test classes play no part.

    python benchmarks/races.py mtl-glyphs --root DATA [--seeds 0 1] [--only NAME] [--out runs/races]

A race is a baseline and variants, each a set of options of `kshot.create_learner` and `kshot.train`, or an idea of
`race_ideas.py`; the differences to the baseline are paired over validation tasks. Seconds are those of the processor
and of training alone. What has run is kept in --out and not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import race_ideas as ideas
from common import describe_machine

import kshot
from kshot.intervals import MeanInterval, mean_interval

TASKS, SHOTS = 600, (1, 5)


@dataclass(frozen=True)
class Variant:
    """What sets a variant apart.

    Parameters
    ----------
    name
        Its learner; None for the race's.
    learner, training
        Options of the learner, and of its training.
    backbone
        A variety of Conv4.
    images
        How many images it sees, as a multiple of the race's.
    within
        A context that it is trained in.
    """

    name: str | None = None
    learner: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    backbone: str = "conv4"
    images: float = 1.0
    within: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


@dataclass(frozen=True)
class Race:
    """What all variants share, and what sets each apart from the baseline, which is the first of them.

    `images` is what each variant sees, unless it says otherwise; an epoch is an equal part of it. Unless said
    otherwise, the rate falls along a cosine.
    """

    data: str
    learner: str
    images: int
    training: dict[str, Any]
    variants: dict[str, Variant]
    epochs: int = 20
    validation_tasks: int = 50


MTL_TASKS = {"ways": 50, "shots": 1, "queries": 1, "meta_batch": 1}
SGD = {"optimizer": "sgd", "learning_rate": 0.1, "nesterov": True, "weight_decay": 5e-4}
RADAM = {"optimizer": "radam", "learning_rate": 0.02, "nesterov": False, "weight_decay": 0}
EARLY = {"initial_scale": 0.1, "scale": 10.0}
STARTS = {
    "supervised": Variant("supervised", training={"meta_batch": 100}),
    "as the paper": Variant(training=MTL_TASKS),
    "matrix x 0.1": Variant(learner={"initial_scale": 0.1}, training=MTL_TASKS),
    "matrix x 0.1, 100 ways": Variant(learner={"initial_scale": 0.1}, training={**MTL_TASKS, "ways": 100}),
    "matrix x 0.1, scale 10": Variant(learner=EARLY, training=MTL_TASKS),
    "matrix x 0.1, scale 10, 100 ways": Variant(learner=EARLY, training={**MTL_TASKS, "ways": 100}),
    "matrix x 0.1, scale 10, 200 ways": Variant(learner=EARLY, training={**MTL_TASKS, "ways": 200}),
}  # what MTL's first minutes depend on
RACES = {
    "mtl-glyphs": Race(
        data="glyphs",
        learner="mtl",
        images=80_000,
        training={**MTL_TASKS, "learning_rate": 0.01},
        variants={
            "as the paper": Variant(),
            "matrix x 0.1": Variant(learner={"initial_scale": 0.1}),
            "scale 10": Variant(learner={"scale": 10.0}),
            "matrix x 0.1, scale 10": Variant(learner={"initial_scale": 0.1, "scale": 10.0}),
            "matrix x 0.1, scale 10, 100 ways": Variant(
                learner={"initial_scale": 0.1, "scale": 10.0}, training={"ways": 100}
            ),
            "matrix x 0.1, scale 10, 200 ways": Variant(
                learner={"initial_scale": 0.1, "scale": 10.0}, training={"ways": 200}
            ),
        },
    ),
    "mtl-cifar-fs": Race(
        data="cifar-fs",
        learner="mtl",
        images=128_000,
        training={"ways": 64, "shots": 1, "queries": 1, "meta_batch": 1, **SGD, "precision": "bf16"},
        variants={
            "scale 10": Variant(learner={"scale": 10.0}),
            "no scale": Variant(),
            "scale 10, rate 0.3": Variant(learner={"scale": 10.0}, training={"learning_rate": 0.3}),
            "scale 10, RAdam 0.02": Variant(learner={"scale": 10.0}, training=RADAM),
            "scale 10, 20 ways": Variant(learner={"scale": 10.0}, training={"ways": 20, "shots": 3, "queries": 3}),
            "RAdam 0.02, 20 ways": Variant(training={**RADAM, "ways": 20, "shots": 5, "queries": 5}),
            "scale 10, no augmentation": Variant(learner={"scale": 10.0}, training={"augment": False}),
            "scale 10, matrix x 0.1": Variant(learner={"scale": 10.0, "initial_scale": 0.1}),
        },
    ),
    "mtl-cifar-fs-ideas": Race(
        data="cifar-fs",
        learner="mtl",
        images=100_000,
        validation_tasks=2,  # which steers nothing here
        training={"ways": 64, "shots": 1, "queries": 1, "meta_batch": 1, **SGD, "precision": "bf16"},
        variants={
            "baseline": Variant(learner={"scale": 10.0}),
            "Muon": Variant(learner={"scale": 10.0}, training={"optimizer": "muon"}),
            "one cycle to 0.3": Variant(
                learner={"scale": 10.0},
                training={"learning_rate": 0.3},
                within=lambda: ideas.schedule_of(ideas.one_cycle(0.25)),
            ),
            "steps of 64 images": Variant(learner={"scale": 10.0}, training={"queries": 0}),
            "label smoothing 0.1": Variant("mtl-smoothed", learner={"smoothing": 0.1}),
            "weight average, decay 0.99": Variant("mtl-averaged", learner={"decay": 0.99}),
            "20 px in the first half": Variant(
                "mtl-progressive", learner={"size": 20, "small_steps": 390}, backbone="conv4-small-maps"
            ),
            "20 px in the first half, 1.4 times the images": Variant(
                "mtl-progressive", learner={"size": 20, "small_steps": 546}, backbone="conv4-small-maps", images=1.4
            ),
            "rotation": Variant("mtl-rotation", images=2 / 3),  # the other third is rotated copies
            "self-distillation": Variant("mtl-distilled", learner={"teacher": "baseline"}),
            "twice the images": Variant(learner={"scale": 10.0}, images=2),
            "Muon, rate 0.04": Variant(learner={"scale": 10.0}, training={"optimizer": "muon", "learning_rate": 0.04}),
            "Muon, rate 0.2": Variant(learner={"scale": 10.0}, training={"optimizer": "muon", "learning_rate": 0.2}),
            "one cycle to 0.1": Variant(
                learner={"scale": 10.0}, within=lambda: ideas.schedule_of(ideas.one_cycle(0.25))
            ),
            "constant rate, weight average, decay 0.995": Variant(
                "mtl-averaged", learner={"decay": 0.995}, training={"schedule": "constant"}
            ),
            "matrix x 0.1": Variant(learner={"scale": 10.0, "initial_scale": 0.1}),
        },
    ),
    "demo": Race(
        data="glyphs",
        learner="mtl",
        images=80_000,
        epochs=8,
        training={"learning_rate": 0.01, "schedule": "plateau"},
        variants=STARTS,
    ),
    "omniglot": Race(
        data="omniglot-background",
        learner="mtl",
        images=80_000,
        epochs=8,
        training={"learning_rate": 0.01},
        variants=STARTS,
    ),
    "matching-net-glyphs": Race(
        data="glyphs",
        learner="matching-net",
        images=80_000,
        training={"ways": 20, "shots": 5, "queries": 5, "meta_batch": 1, "learning_rate": 0.01},
        variants={
            "as the paper": Variant(),
            "scale 10": Variant(learner={"scale": 10.0}),
            "scale 3": Variant(learner={"scale": 3.0}),
        },
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What a variant came to with one seed."""

    name: str
    seed: int
    images: int
    processor_seconds: float
    accuracies: dict[str, list[float]]  # of each validation task, by number of shots

    def line(self, baseline: Outcome) -> str:
        """The accuracies, and the paired differences to a baseline, in percent."""
        parts = []
        for shots, values in self.accuracies.items():
            gain = self.gain(baseline, shots)
            mean, ci95 = mean_interval(values)
            parts.append(f"{100 * mean:.2f} ± {100 * ci95:.2f} ({100 * gain.mean:+.2f} ± {100 * gain.ci95:.2f})")
        cost = f"{self.images:,} images, {self.processor_seconds:.0f} s"
        return f"{self.name}, seed {self.seed}: {', '.join(parts)}; {cost}"

    def gain(self, baseline: Outcome, shots: str) -> MeanInterval:
        """The paired difference to a baseline, with its interval over tasks."""
        return mean_interval([a - b for a, b in zip(self.accuracies[shots], baseline.accuracies[shots])])


def outcome_of(args: argparse.Namespace, name: str, seed: int) -> Outcome:
    """Train the variant and measure it on the validation classes, unless that is done."""
    race, folder = RACES[args.race], args.out / args.race / f"{name.replace(' ', '-')}-seed{seed}"
    file = folder.with_name(f"{folder.name}.json")
    if file.exists():
        return Outcome(**json.loads(file.read_text()))
    data, variant = kshot.load(race.data, args.root), race.variants[name]
    training, options = {**race.training, **variant.training}, dict(variant.learner)
    if "teacher" in options:  # an earlier variant with the same seed
        options["teacher"] = str(folder.with_name(f"{options['teacher'].replace(' ', '-')}-seed{seed}"))
    learner = kshot.create_learner(
        variant.name or race.learner,
        data,
        backbone=variant.backbone,
        backbone_options={"width": 64},
        ways=training.get("ways"),
        seed=seed,
        **options,
    )
    # a learner without tasks of its own, such as the supervised control, takes images
    per_task = training["ways"] * (training["shots"] + training["queries"]) if "ways" in training else 1
    tasks_per_epoch = int(variant.images * race.images) // (race.epochs * per_task)
    started = time.process_time()
    with variant.within():
        run = kshot.train(
            learner,
            data,
            run=folder,
            resume=folder.is_dir(),
            seed=seed,
            max_epochs=race.epochs,
            tasks_per_epoch=tasks_per_epoch,
            patience=0,
            validation_ways=5,
            validation_shots=5,
            validation_tasks=race.validation_tasks,
            progress=False,
            **{"schedule": "cosine", **training},
        )
    seconds = time.process_time() - started
    results = {
        str(shots): kshot.evaluate(run.load(checkpoint="last"), data.val, ways=5, shots=shots, tasks=TASKS, seed=0)
        for shots in SHOTS
    }
    images = race.epochs * tasks_per_epoch * per_task
    accuracies = {shots: result.values.tolist() for shots, result in results.items()}
    outcome = Outcome(name, seed, images, seconds, accuracies)
    file.write_text(json.dumps(asdict(outcome)))
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("race", choices=RACES)
    parser.add_argument("--root", type=Path, help="folder of prepared datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/races"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="names of variants, beside the baseline; by default all")
    args = parser.parse_args()
    race = RACES[args.race]
    print(describe_machine())
    print(f"{args.race}: Conv4-64, {TASKS} tasks of the validation classes, 5 ways, {SHOTS} shots, minus the baseline")
    for seed in args.seeds:
        baseline = outcome_of(args, next(iter(race.variants)), seed)
        for name in args.only or race.variants:
            print(outcome_of(args, name, seed).line(baseline), flush=True)


if __name__ == "__main__":
    main()
