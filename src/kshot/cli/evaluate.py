"""`kshot evaluate`: accuracy of runs with intervals; its parts serve `kshot compare`, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from jsonargparse import Namespace

from kshot import data as datasets
from kshot.cli.options import DEVICE_TEXT, ROOT_TEXT, Options, chosen
from kshot.data.dataset import SplitName
from kshot.evaluation.protocol import evaluate
from kshot.measures import Statistics
from kshot.report.rows import Row
from kshot.report.tables import Style, seeds_line, table
from kshot.runs.measurement import Measurement
from kshot.runs.pages import seed_groups
from kshot.runs.run import Checkpoint, Run
from kshot.solvers import Adaptation, adaptations
from kshot.training.distributed import resolve_device

_FROM_COMMAND = {"learner", "split", "shots", "adaptation", "features", "statistics", "progress"}


def run(arguments: Sequence[str]) -> None:
    """Measure trained runs on sampled tasks of a split: mean accuracy with its 95% interval.

    The features of each image are computed once and shared by all tasks and shots. Task i is the same for every
    run. Each result goes to RUN/evaluation/, with the accuracy of every task.

    Examples
    --------
    kshot evaluate runs/mtl-glyphs-conv4-seed0
    kshot evaluate runs/mtl-cifar-fs-5shot-seed* --shots 1 5 --queries 30
    kshot evaluate runs/mtl-cifar-fs-5shot-seed0 --data my-photos
    kshot evaluate runs/mtl-cifar-fs-5shot-seed0 --adaptation ridge --style markdown
    kshot evaluate runs/mtl-cifar-fs-5shot-seed0 --adaptation logistic --adaptation.c 1
    """
    options = evaluation_options(arguments, "kshot evaluate", run)
    given = options.parse(arguments)
    runs = [Run(folder, root=given.root, checkpoint=given.checkpoint) for folder in given.runs]
    groups = seed_groups([run.content() for run in runs])
    rows = measured(runs, given)
    print(f"\n{table([row for several in rows for row in several]).render(given.style)}")
    if given.style == "text":
        for members in groups:
            for alike in zip(*(rows[position] for position in members)):
                print(seeds_line(alike))


def evaluation_options(arguments: Sequence[str], command: str, function: Callable[..., None]) -> Options:
    """The options that `kshot evaluate` and `kshot compare` share; the docstring of `function` is the help."""
    options = Options.of(command, function, positional="RUN [RUN ...]")
    options.add("runs", list[Path], text="run folders, as kshot train wrote them")
    options.add("--shots", list[int], default=[5], text="support images per class, one or more numbers")
    options.add("--data", str | None, text="the dataset to measure on; null for the one that each run was trained on")
    options.add("--split", SplitName, default="test", text="the classes that tasks are drawn from")
    checkpoint_text = (
        "which weights: best, those of the best validation accuracy, or last, for instance if best.pt is damaged"
    )
    options.add("--checkpoint", Checkpoint, default="best", text=checkpoint_text)
    options.add("--style", Style, default="text", text="of the table; csv has one line per number")
    options.add("--root", Path | None, text=ROOT_TEXT)
    options.add("--device", str, default="auto", text=DEVICE_TEXT)
    options.add_signature(evaluate, "tasks", skip=_FROM_COMMAND)
    text = (
        "where BatchNorm statistics come from, for learners that adapt weights: transductive (the whole query set), "
        "inductive (the support set plus one query image); null for all that a learner offers"
    )
    options.add("--statistics", list[Statistics] | None, text=text)
    known = ", ".join(sorted(adaptations))
    text = f"how a task is learnt from features: {known}; null for the learner's own"
    options.add("--adaptation.name", str | None, text=text)
    name = chosen(arguments, ["adaptation"]).get("adaptation")
    if name is not None:
        options.add_signature(adaptations[name], f"adaptation {name}", prefix="adaptation.", among=adaptations)
    return options


def measured(runs: list[Run], given: Namespace, *, reuse: bool = False) -> list[list[Row]]:
    """Each run at every number of shots, one row per kind of statistics; refuses before any work what cannot be.

    runs: emptied, so that the images of only one run at a time are in memory.
    reuse: keep what was measured before with the same options.
    """
    other = datasets.load(given.data, root=given.root) if given.data is not None else None
    options = {field.name: given[field.name] for field in fields(Measurement) if field.name != "adaptation"}
    measurement = Measurement(**options, adaptation=_adaptation(given))
    for run in runs:
        measurement.check(run.learner, other or run.data)
    rows = []
    while runs:
        run = runs.pop(0)
        run.learner.to(resolve_device(given.device))
        rows.append(run.rows(run.measure(measurement, other, reuse=reuse, progress=True)))
    return rows


def _adaptation(given: Namespace) -> Adaptation | None:
    options = given.adaptation.as_dict()
    name = options.pop("name")
    return adaptations[name](**options) if name is not None else None
