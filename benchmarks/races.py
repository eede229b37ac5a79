"""Variants of a training at equal numbers of images, judged on the validation classes; test classes play no part.

    python benchmarks/races.py mtl-glyphs --root DATA [--seeds 0 1] [--only NAME] [--out runs/races]

A race is a baseline and variants, each a set of options of `kshot.create_learner` and `kshot.train`; the differences to
the baseline are paired over validation tasks. What has run is kept in --out and not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import describe_machine

import kshot
from kshot.report.rows import Row

TASKS, SHOTS = 600, (1, 5)


@dataclass(frozen=True)
class Variant:
    """What sets a variant apart: its learner, the options of that, and those of its training."""

    name: str | None = None
    learner: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Race:
    """What all variants share, and what sets each apart from the baseline, which is the first of them.

    `images` is what each variant sees; an epoch is an equal part of it. Unless said otherwise, the rate falls along a
    cosine.
    """

    data: str
    learner: str
    images: int
    training: dict[str, Any]
    variants: dict[str, Variant]
    epochs: int = 20


CONV4 = {"backbone": "conv4", "backbone_options": {"width": 64}}
MTL_TASKS = {"ways": 50, "shots": 1, "queries": 1, "meta_batch": 1}
SGD = {"optimizer": "sgd", "learning_rate": 0.1, "nesterov": True, "weight_decay": 5e-4}
RADAM = {"optimizer": "radam", "learning_rate": 0.02, "nesterov": False, "weight_decay": 0}
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
    "demo": Race(
        data="glyphs",
        learner="mtl",
        images=80_000,
        epochs=8,
        training={"learning_rate": 0.01, "schedule": "plateau"},
        variants={
            "supervised": Variant("supervised", training={"meta_batch": 100}),
            "as the paper": Variant(training=MTL_TASKS),
            "matrix x 0.1": Variant(learner={"initial_scale": 0.1}, training=MTL_TASKS),
            "matrix x 0.1, 100 ways": Variant(learner={"initial_scale": 0.1}, training={**MTL_TASKS, "ways": 100}),
            "matrix x 0.1, scale 10, 100 ways": Variant(
                learner={"initial_scale": 0.1, "scale": 10.0}, training={**MTL_TASKS, "ways": 100}
            ),
        },
    ),
    "omniglot": Race(
        data="omniglot-background",
        learner="mtl",
        images=80_000,
        epochs=8,
        training={**MTL_TASKS, "learning_rate": 0.01},
        variants={"as the paper": Variant(), "matrix x 0.1": Variant(learner={"initial_scale": 0.1})},
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


def run_variant(race: Race, name: str, seed: int, args: argparse.Namespace) -> Row:
    """Train the variant, unless that is done, and measure it on the validation classes."""
    data, variant = kshot.load(race.data, args.root), race.variants[name]
    folder = args.out / args.race / f"{name.replace(' ', '-')}-seed{seed}"
    training = {**race.training, **variant.training}
    learner = kshot.create_learner(
        variant.name or race.learner, data, **CONV4, ways=training.get("ways"), seed=seed, **variant.learner
    )
    # a learner without tasks of its own, such as the supervised control, takes images
    per_task = training["ways"] * (training["shots"] + training["queries"]) if "ways" in training else 1
    run = kshot.train(
        learner,
        data,
        run=folder,
        resume=folder.is_dir(),  # a training that ended has nothing left to do
        seed=seed,
        max_epochs=race.epochs,
        tasks_per_epoch=race.images // (race.epochs * per_task),
        patience=0,
        validation_ways=5,
        validation_shots=5,
        validation_tasks=50,
        **{"schedule": "cosine", **training},
    )
    results = [
        kshot.evaluate(run.load(checkpoint="last"), data.val, ways=5, shots=shots, tasks=TASKS, seed=0)
        for shots in SHOTS
    ]
    return Row(f"{name}, seed {seed}", results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("race", choices=RACES)
    parser.add_argument("--root", type=Path, help="folder of prepared datasets")
    parser.add_argument("--out", type=Path, default=Path("runs/races"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="names of variants; by default all")
    args = parser.parse_args()
    race = RACES[args.race]
    print(describe_machine())
    print(f"{args.race}: Conv4-64, {race.images:,} images each; validation classes, 5 ways")
    for seed in args.seeds:
        rows = [run_variant(race, name, seed, args) for name in args.only or race.variants]
        print(kshot.report.tables.table(rows, paired=True), flush=True)


if __name__ == "__main__":
    main()
