"""Train the learners of the study all-learners on equally many images, by their recipes, for benchmarks/adaptations.py.

    python benchmarks/equal_images.py mtl anil maml --data glyphs --images 80000 --out runs/equal

A run that has ended is not trained again, and one that was broken off goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import describe_machine

import kshot
from kshot.studies import study_file
from kshot.studies.build import build_learner, images_per_task, train_cell
from kshot.studies.cells import Cell, cells_of

COSINE = {"schedule": "cosine", "milestones": None, "step_every": None, "factor": 0.1, "patience": 0}


def equally_long(cell: Cell, data: kshot.Dataset, *, images: int, epochs: int, validation_tasks: int) -> Cell:
    """The cell with so many images of training in all."""
    learner = build_learner(cell.options, data, seed=cell.seed)
    meta_batch = cell.options["training"].get("meta_batch") or learner.meta_batch
    steps = round(images / epochs / images_per_task(cell.options, learner, data) / meta_batch)
    length = {"max_epochs": epochs, "tasks_per_epoch": steps * meta_batch, "validation_tasks": validation_tasks}
    options = {**cell.options, "training": cell.options["training"] | COSINE | length}
    return Cell(**{**cell.plain(), "options": options})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("learners", nargs="+", help="entries of the study all-learners")
    parser.add_argument("--data", default="glyphs", help="one of the study's datasets")
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--images", type=int, default=80_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--validation-tasks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/equal"), help="folder of the runs")
    arguments = parser.parse_args()

    data = kshot.load(arguments.data, arguments.root)
    found = cells_of(study_file.load("all-learners"), seeds=[arguments.seed], data=[arguments.data])
    cells = {cell.entry.removesuffix(f"-{arguments.data}"): cell for cell in found}
    unknown = set(arguments.learners) - cells.keys()
    if unknown:
        parser.error(f"the study has no {', '.join(sorted(unknown))}; choose of: {', '.join(cells)}")
    print(describe_machine())
    for name in arguments.learners:
        length = {"images": arguments.images, "epochs": arguments.epochs}
        cell = equally_long(cells[name], data, **length, validation_tasks=arguments.validation_tasks)
        begun = time.process_time()
        train_cell(cell, arguments.out / name, root=arguments.root)
        print(f"{name}: {time.process_time() - begun:.0f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
