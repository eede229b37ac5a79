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
class Race:
    """What all variants share, and what sets each apart from the baseline, which is the first of them.

    `images` is what each variant sees; an epoch is a twentieth of it, and the rate falls along a cosine.
    """

    data: str
    learner: str
    backbone: dict[str, Any]
    images: int
    training: dict[str, Any]
    variants: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


MTL_TASKS = {"ways": 50, "shots": 1, "queries": 1, "meta_batch": 1}
SGD = {"optimizer": "sgd", "learning_rate": 0.1, "nesterov": True, "weight_decay": 5e-4}
RADAM = {"optimizer": "radam", "learning_rate": 0.02, "nesterov": False, "weight_decay": 0}
RACES = {
    "mtl-glyphs": Race(
        data="glyphs",
        learner="mtl",
        backbone={"name": "conv4", "width": 64},
        images=80_000,
        training={**MTL_TASKS, "learning_rate": 0.01},
        variants={
            "as the paper": {},
            "matrix x 0.1": {"learner": {"initial_scale": 0.1}},
            "scale 10": {"learner": {"scale": 10.0}},
            "matrix x 0.1, scale 10": {"learner": {"initial_scale": 0.1, "scale": 10.0}},
            "matrix x 0.1, scale 10, 100 ways": {
                "learner": {"initial_scale": 0.1, "scale": 10.0},
                "training": {"ways": 100},
            },
            "matrix x 0.1, scale 10, 200 ways": {
                "learner": {"initial_scale": 0.1, "scale": 10.0},
                "training": {"ways": 200},
            },
        },
    ),
    "mtl-cifar-fs": Race(
        data="cifar-fs",
        learner="mtl",
        backbone={"name": "conv4", "width": 64},
        images=128_000,
        training={"ways": 64, "shots": 1, "queries": 1, "meta_batch": 1, **SGD, "precision": "bf16"},
        variants={
            "scale 10": {"learner": {"scale": 10.0}},
            "no scale": {},
            "scale 10, rate 0.3": {"learner": {"scale": 10.0}, "training": {"learning_rate": 0.3}},
            "scale 10, RAdam 0.02": {"learner": {"scale": 10.0}, "training": RADAM},
            "scale 10, 20 ways": {"learner": {"scale": 10.0}, "training": {"ways": 20, "shots": 3, "queries": 3}},
            "RAdam 0.02, 20 ways": {"training": {**RADAM, "ways": 20, "shots": 5, "queries": 5}},
            "scale 10, no augmentation": {"learner": {"scale": 10.0}, "training": {"augment": False}},
            "scale 10, matrix x 0.1": {"learner": {"scale": 10.0, "initial_scale": 0.1}},
        },
    ),
    "matching-net-glyphs": Race(
        data="glyphs",
        learner="matching-net",
        backbone={"name": "conv4", "width": 64},
        images=80_000,
        training={"ways": 20, "shots": 5, "queries": 5, "meta_batch": 1, "learning_rate": 0.01},
        variants={"as the paper": {}, "scale 10": {"learner": {"scale": 10.0}}, "scale 3": {"learner": {"scale": 3.0}}},
    ),
}


def run_variant(race: Race, name: str, variant: dict[str, dict[str, Any]], seed: int, args: argparse.Namespace) -> Row:
    """Train the variant, unless that is done, and measure it on the validation classes."""
    data = kshot.load(race.data, args.root)
    folder = args.out / args.race / f"{name.replace(' ', '-')}-seed{seed}"
    training = {**race.training, **variant.get("training", {})}
    learner = kshot.create_learner(
        race.learner,
        data,
        backbone=race.backbone["name"],
        backbone_options={key: value for key, value in race.backbone.items() if key != "name"},
        ways=training["ways"],
        seed=seed,
        **variant.get("learner", {}),
    )
    per_task = training["ways"] * (training["shots"] + training["queries"])
    run = kshot.train(
        learner,
        data,
        run=folder,
        resume=folder.is_dir(),  # a training that ended has nothing left to do
        seed=seed,
        max_epochs=20,
        tasks_per_epoch=race.images // (20 * per_task),
        schedule="cosine",
        patience=0,
        validation_ways=5,
        validation_shots=5,
        validation_tasks=50,
        **training,
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
    chosen = {name: race.variants[name] for name in args.only} if args.only else race.variants
    print(describe_machine())
    print(f"{race.learner} on {race.data}, {race.backbone}, {race.images:,} images each; validation classes, 5 ways")
    for seed in args.seeds:
        rows = [run_variant(race, name, variant, seed, args) for name, variant in chosen.items()]
        print(kshot.report.tables.table(rows, paired=True), flush=True)


if __name__ == "__main__":
    main()
