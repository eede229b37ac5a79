"""`kshot evaluate`: accuracy of runs with intervals; its parts serve `kshot compare`, too."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from kshot.cli.options import ROOT_TEXT, Options, chosen, parameters
from kshot.data.dataset import SplitName
from kshot.data.regression import RegressionDataset
from kshot.data.tasks import AnyDataset
from kshot.evaluation.protocol import (
    departure,
    describe_adaptation,
    evaluate,
    plan_evaluation,
    shared_features,
    usual_ways,
)
from kshot.evaluation.results import Evaluation
from kshot.learners import Learner
from kshot.measures import Statistics
from kshot.report.published import row_of
from kshot.report.tables import Row, Style, seeds_line, table
from kshot.runs.config import read_config
from kshot.runs.folder import load_run
from kshot.runs.readers import groups_by_seed, read_evaluations, save_evaluation, weights_of
from kshot.solvers import Adaptation, adaptations
from kshot.training.distributed import resolve_device

_FROM_COMMAND = {"learner", "split", "shots", "adaptation", "features", "statistics", "progress"}


def run(arguments: Sequence[str]) -> None:
    """Evaluate every run at every number of shots, save the results, print a table."""
    options = evaluation_options(
        arguments,
        "kshot evaluate",
        "Measure trained runs on sampled tasks of a split: mean accuracy with its 95% interval.\n\n"
        "The features of each image are computed once and shared by all tasks and shots. Task i is the same for every\n"
        "run. Each result goes to RUN/evaluation/, with the accuracy of every task.",
        [
            "kshot evaluate runs/mtl-glyphs-conv4-seed0",
            "kshot evaluate runs/mtl-cifar-fs-5shot-seed* --shots 1 5 --queries 30",
            "kshot evaluate runs/mtl-cifar-fs-5shot-seed0 --adaptation ridge --style markdown",
            "kshot evaluate runs/mtl-cifar-fs-5shot-seed0 --adaptation logistic --adaptation.c 1",
        ],
    )
    given = options.parse(arguments)
    rows = measured(given)
    print(f"\n{table([row for several in rows for row in several], style=given.style)}")
    if given.style != "csv":
        for members in groups_by_seed(given.runs):
            for alike in zip(*(rows[position] for position in members)):
                print(seeds_line(alike))


def evaluation_options(arguments: Sequence[str], command: str, description: str, examples: Sequence[str]) -> Options:
    """The options that `kshot evaluate` and `kshot compare` share."""
    options = Options(command, description, examples, positional="RUN [RUN ...]")
    options.add("runs", list[Path], None, "run folders, as kshot train wrote them")
    options.add("--shots", list[int], [5], "support images a class, one or more numbers")
    options.add("--split", SplitName, "test", "the classes that tasks are drawn from")
    options.add("--style", Style, "text", "of the table; csv has one line a number")
    options.add("--root", Path | None, None, ROOT_TEXT)
    options.add("--device", str, "auto", 'where to compute: "auto" for a GPU where there is one, "cpu", "cuda:1"')
    options.add_signature(evaluate, "tasks", skip=_FROM_COMMAND)
    text = (
        "where BatchNorm statistics come from, for learners that adapt weights: transductive (the whole query set), "
        "inductive (the support set plus one query image); null for all that a learner offers"
    )
    options.add("--statistics", list[Statistics] | None, None, text)
    known = ", ".join(sorted(adaptations))
    text = f"how a task is learnt from features: {known}; null for the learner's own"
    options.add("--adaptation.name", str | None, None, text)
    name = chosen(arguments, ["adaptation"]).get("adaptation")
    if name is not None:
        options.add_signature(adaptations[name], f"adaptation {name}", "adaptation.", among=adaptations)
    return options


def measured(given: Namespace, reuse: bool = False) -> list[list[Row]]:
    """Each run at every number of shots, a row for each kind of statistics; what cannot be is said before any work.

    reuse: keep what was measured before with the same options.
    """
    loaded = [load_run(folder, root=given.root) for folder in given.runs]
    for learner, data in loaded:
        _check(learner, data, given)
    return [_measured(folder, *loaded.pop(0), given, reuse) for folder in given.runs]  # images of one run at a time


def _check(learner: Learner, data: AnyDataset, given: Namespace) -> None:
    adaptation, split = _adaptation(given), data.split(given.split)
    for statistics in _statistics(learner, data, given):
        for shots in given.shots:
            plan_evaluation(
                learner, split, shots=shots, adaptation=adaptation, statistics=statistics, **_task_options(given)
            )


def _measured(folder: Path, learner: Learner, data: AnyDataset, given: Namespace, reuse: bool) -> list[Row]:
    config, weights = read_config(folder), weights_of(folder)
    rows = []
    for statistics in _statistics(learner, data, given):
        saved = _saved(folder, learner, data, given, statistics) if reuse else {}
        missing = [shots for shots in given.shots if shots not in saved]
        if missing:
            saved.update(zip(missing, evaluate_all(learner, data, given, missing, statistics, title=folder.name)))
            for shots in missing:
                save_evaluation(folder, saved[shots], weights)
        results = [saved[shots] for shots in given.shots]
        name = folder.name if len(_offered(learner, data)) == 1 else f"{folder.name}, {statistics}"
        rows.append(row_of(name, config, results))
    return rows


def _offered(learner: Learner, data: AnyDataset) -> Sequence[Statistics]:
    """The kinds of statistics that make a difference: a network of fully connected layers normalises nothing."""
    return learner.statistics_offered[:1] if isinstance(data, RegressionDataset) else learner.statistics_offered


def _statistics(learner: Learner, data: AnyDataset, given: Namespace) -> Sequence[Statistics]:
    return given.statistics or _offered(learner, data)


def _task_options(given: Namespace) -> dict[str, Any]:
    """The options of `evaluate` that are typed under their own names."""
    return {name: given[name] for name, *_ in parameters(evaluate) if name not in _FROM_COMMAND}


def evaluate_all(
    learner: Learner, data: AnyDataset, given: Namespace, shots: Sequence[int], statistics: Statistics, title: str
) -> list[Evaluation]:
    """One learner at several numbers of shots, on features that are computed once."""
    learner.to(resolve_device(given.device))
    split = data.split(given.split)
    print(f"evaluating {title} on {data.name}/{split.name}", file=sys.stderr)
    adaptation = _adaptation(given)
    features = shared_features(learner, split, adaptation, given.precision, progress=True)
    options = _task_options(given) | {"adaptation": adaptation, "features": features, "statistics": statistics}
    return [evaluate(learner, split, shots=count, progress=True, **options) for count in shots]


def _adaptation(given: Namespace) -> Adaptation | None:
    options = given.adaptation.as_dict()
    name = options.pop("name")
    return adaptations[name](**options) if name is not None else None


def _saved(
    folder: Path, learner: Learner, data: AnyDataset, given: Namespace, statistics: Statistics
) -> dict[int, Evaluation]:
    """What was measured before with these options, by the number of shots."""
    adaptation = describe_adaptation(_adaptation(given) or getattr(learner, "adaptation", None))
    split = data.split(given.split)
    wanted = {"dataset": data.name} | {name: given[name] for name in ("split", "queries", "tasks", "seed")}
    wanted["ways"] = usual_ways(learner, split) if given.ways is None else given.ways
    wanted["statistics"] = statistics
    wanted["within_domain"] = departure(split, given.within_domain)
    return {
        result.protocol.shots: result
        for result in read_evaluations(folder)
        if (result.adaptation, result.precision) == (adaptation, given.precision)
        and wanted.items() <= asdict(result.protocol).items()
    }
