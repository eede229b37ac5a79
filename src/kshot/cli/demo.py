"""`kshot demo`: train three learners on glyphs, and compare them and an untrained network on unseen scripts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kshot import data as datasets
from kshot import demo
from kshot.cli.options import ROOT_TEXT, Options


def run(arguments: Sequence[str]) -> None:
    """Train multi-task learning, the supervised control and ProtoNet (Conv4-64) on characters that are drawn from
    fonts, and compare all three and an untrained network on 1000 tasks of scripts that training never saw.
    Takes about two minutes on two cores and downloads nothing.

    Examples
    --------
    kshot demo
    kshot demo --out somewhere --seed 1
    """
    options = Options.of("kshot demo", run)
    options.add("--out", Path, default=Path("demo"), text="folder for the runs, table.txt and task.png")
    options.add("--seed", int, default=0, text="seed of the initial weights, the training tasks and the test tasks")
    options.add("--epochs", int, default=8, text="epochs of each training; an epoch has 10,000 images")
    options.add("--root", Path | None, text=ROOT_TEXT)
    given = options.parse(arguments)
    started = time.perf_counter()
    print("1/3  preparing glyphs: characters in 8 typefaces, split by script")
    data = datasets.load_images(demo.DATASET, given.root)
    parts = ", ".join(f"{split.num_classes} {split.name}" for split in (data.train, data.val, data.test))
    scripts = ", ".join(sorted(set(data.test.domains)))
    print(f"     {parts} characters; the test scripts, {scripts}, never occur in training")
    print("2/3  training, and measuring on the same tasks")
    measured = []
    for contestant in demo.contestants(data, given.out, seed=given.seed, epochs=given.epochs):
        measured.append(contestant)
        print(f"     {contestant}")
    print("3/3  drawing one task")
    picture = demo.draw_task(measured[0].learner, data, seed=given.seed, path=given.out / "task.png")
    print(f"\n{demo.write_table(measured, seed=given.seed, path=given.out / 'table.txt')}\n")
    print(f"picture  {picture}")
    print(f"runs     {given.out}/{', '.join(demo.TRAINING)}")
    print(f"time     {time.perf_counter() - started:.0f} s")
    print(f"next     kshot evaluate {given.out}/mtl --adaptation ridge")
