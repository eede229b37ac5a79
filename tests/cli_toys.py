"""A tiny prepared dataset and short options, shared by the tests of the commands."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kshot.data.classes import ClassInfo
from kshot.data.writing import Contents, write
from kshot.report.page import page
from kshot.runs.pages import seed_groups
from kshot.runs.run import Run

TINY = shlex.split(
    "--data tiny --backbone.width 8 --max-epochs 2 --tasks-per-epoch 6 --meta-batch 3 --validation-tasks 10 "
    "--queries 3 --shots 2 --validation-queries 4 --progress false"
)
MEASURE = ["--tasks", "30", "--queries", "4"]


def prepare_tiny(root: Path, *, overwrite: bool = False) -> None:
    """Prepare `tiny`: 8 + 6 + 6 classes of 12 images, 16x16, one channel."""
    generator = np.random.default_rng(0)
    parts = ["train"] * 8 + ["val"] * 6 + ["test"] * 6
    classes = [ClassInfo(f"class-{number}", "all", split=part, count=12) for number, part in enumerate(parts)]
    prototypes = generator.integers(60, 196, (len(parts), 16, 16, 1))
    noise = generator.normal(0, 60, (len(parts), 12, 16, 16, 1))
    images = (prototypes[:, None] + noise).clip(0, 255).astype(np.uint8)
    batches = [(images[number], np.full(12, number)) for number in range(len(parts))]
    write(
        "tiny",
        Contents(classes, (16, 16, 1), batches=batches, origin="random", augment="none"),
        root=root,
        overwrite=overwrite,
    )


def page_of(runs: Sequence[Path]) -> str:
    """The page about run folders, as HTML."""
    contents = [Run(run).content() for run in runs]
    return page(contents, seed_groups=seed_groups(contents))
