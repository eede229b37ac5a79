"""Every learner of kshot, trained for the same time and measured on the same tasks, in one table.

    OMP_NUM_THREADS=1 python benchmarks/all_learners.py --data cifar-fs --minutes 10 --out runs/all-cifar-fs

Each learner is trained and evaluated by `kshot` in processes of its own, whose processor time and memory the table
shows. All have the same network, Conv4, and the optimiser of their recipes; the rate falls along a cosine over as many
steps as fit into the minutes, which a short run finds out first. One training on 5-shot tasks serves all numbers of
shots. TSA-MAML spends half of its time on MAML. What is done is not done again, and what was interrupted goes on: run
it once more, also to print the table, or with --learners to share the work among cores.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import describe_machine
from tabulate import tabulate

from kshot import evaluate
from kshot.measures import ACCURACY
from kshot.report.runs import read_evaluations, save_evaluation, weights_of
from kshot.results import Evaluation, compare
from kshot.training import load_run

EPOCHS, VALIDATION_TASKS, SECONDS_OF_A_TRIAL = 10, 50, 4
TSA_EPOCHS, TSA_SOLUTIONS = 2, 300  # of the groups, each of whose tasks costs twice what it costs MAML


@dataclass(frozen=True)
class Setting:
    """How a learner is trained: the options of `kshot train` that are its own, and how many tasks make a step."""

    options: str
    meta_batch: int


_MANY_WAYS = "--ways 20 --shots 5 --validation-ways 5"
_AS_MAML = "--ways 5 --shots 5 --queries 15 --optimizer adam --learning-rate 0.001 --augment false"
_TOWARDS_TASKS = (
    "--shots 15 --queries 0 --validation-shots 5 --optimizer sgd --momentum 0 --learning-rate 1 --augment false"
)
_LIKE_SVM = "--ways 5 --shots 5 --queries 6 --optimizer sgd --learning-rate 0.1 --nesterov true --weight-decay 0.0005"
SETTINGS = {
    "mtl": Setting(f"{_MANY_WAYS} --queries 5 --learner.statistics joint --optimizer radam --learning-rate 0.02", 2),
    "supervised": Setting("--optimizer sgd --learning-rate 0.05 --weight-decay 0.0005 --validation-ways 5", 64),
    "protonet": Setting(f"{_MANY_WAYS} --queries 15 --optimizer adam --learning-rate 0.001", 1),
    "matching-net": Setting(f"{_MANY_WAYS} --queries 15 --optimizer adam --learning-rate 0.001", 1),
    "tadam": Setting("--ways 5 --shots 5 --queries 6 --optimizer adam --learning-rate 0.001", 4),
    "r2d2": Setting(f"{_MANY_WAYS} --queries 10 --optimizer adam --learning-rate 0.005", 1),
    "metaoptnet-svm": Setting(f"--learner.head svm --learner.statistics joint {_LIKE_SVM}", 8),
    "metaoptnet-ridge": Setting(f"--learner.head ridge --learner.statistics joint {_LIKE_SVM}", 8),
    "maml": Setting(_AS_MAML, 4),
    "fomaml": Setting(f"--learner.first-order true {_AS_MAML}", 4),
    "anil": Setting(_AS_MAML, 16),
    "imaml": Setting(f"--learner.l2 0.5 --learner.inner-steps 10 --learner.test-inner-steps 10 {_AS_MAML}", 4),
    "reptile": Setting(f"{_TOWARDS_TASKS} --augment false", 5),
    "minibatch-prox": Setting(f"{_TOWARDS_TASKS} --augment false", 5),
    "tsa-maml": Setting(_AS_MAML, 4),
    "meta-lstm": Setting(f"--clip-gradient-value 0.25 {_AS_MAML}", 1),
    "mmaml": Setting(f"--learner.inner-clip 20 {_AS_MAML}", 4),
    "hsml": Setting(_AS_MAML, 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--minutes", type=float, default=10, help="of training, for each learner")
    parser.add_argument("--width", type=int, default=32, help="filters of Conv4")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--learners", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    for name in options.learners:
        if not (options.out / name / "cost.json").exists():
            train_and_measure(name, options)
    print(describe_machine())
    print(table([name for name in SETTINGS if (options.out / name / "cost.json").exists()], options))


def train_and_measure(name: str, options: argparse.Namespace) -> None:
    run, log = options.out / name, options.out / f"{name}.log"
    rate, validation = speed_of("maml" if name == "tsa-maml" else name, options)
    step = SETTINGS[name].meta_batch
    each = step * math.floor(rate * (60 * options.minutes / EPOCHS - validation) / step)
    if each < step:
        raise SystemExit(f"{options.minutes:g} minutes are too short for {name}, whose validation alone takes longer")
    words = words_of(name, options, each)
    if name == "tsa-maml":
        lengths = {"pretraining-epochs": EPOCHS // 2, "max-epochs": TSA_EPOCHS, "solutions": TSA_SOLUTIONS}
        words = ["tsa", *words, *(word for key, value in lengths.items() for word in (f"--{key}", str(value)))]
    else:
        words += ["--max-epochs", str(EPOCHS)]
    begun = (run / "checkpoints" / "last.pt").exists() or (run / "stages.yaml").exists()
    resumed = [*words[: words.index("train") + 1], "--resume", str(run)]
    print(f"{name}: {EPOCHS * each} tasks", flush=True)
    cost = call(resumed if begun else [*words, "--run", str(run)], log)
    learner, data = load_run(run)
    for statistics, shots in itertools.product(learner.statistics_offered, options.shots):
        protocol = {"ways": 5, "shots": shots, "queries": options.queries, "tasks": options.tasks}
        result = evaluate(learner, data.split("test"), **protocol, statistics=statistics, progress=sys.stderr.isatty())
        save_evaluation(run, result, weights_of(run))
    note = {"seconds": cost[0], "memory": cost[1], "tasks": EPOCHS * each, "whole": not begun}
    (run / "cost.json").write_text(json.dumps(note))


def speed_of(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """Training tasks a second, and the seconds of a validation, of a run of an epoch of a few seconds."""
    tasks = 4 * SETTINGS[name].meta_batch
    while True:
        run = options.out / "trials" / f"{name}-{tasks}"
        if not (run / "timing.csv").exists():
            words = words_of(name, options, tasks)
            call([*words, "--max-epochs", "1", "--run", str(run)], options.out / f"{name}.log")
        with (run / "timing.csv").open() as file:
            (epoch,) = csv.DictReader(file)
        if float(epoch["seconds"]) >= SECONDS_OF_A_TRIAL:
            return float(epoch["tasks_per_second"]), float(epoch["validation_seconds"])
        tasks *= 4


def words_of(name: str, options: argparse.Namespace, tasks: int) -> list[str]:
    learner = {"fomaml": "maml"}.get(name, name.partition("-svm")[0].partition("-ridge")[0])
    setting = SETTINGS[name]
    return [
        *("train", "--data", options.data, "--learner", learner, "--backbone", "conv4"),
        *("--backbone.width", str(options.width), "--tasks-per-epoch", str(tasks)),
        *("--meta-batch", str(setting.meta_batch), "--validation-tasks", str(VALIDATION_TASKS)),
        *("--schedule", "cosine", "--patience", "0", *setting.options.split()),
    ]


def call(words: Sequence[str], log: Path) -> tuple[float, float]:
    """Processor seconds and peak MiB of a `kshot` command that must succeed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        print("kshot", *words, file=file, flush=True)
        process = subprocess.Popen([sys.executable, "-m", "kshot", *words], stdout=file, stderr=file)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # the run is saved by kshot
            process.wait()
            raise
    if status != 0:
        raise SystemExit(f"kshot {' '.join(words)} failed; see {log}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def table(names: Sequence[str], options: argparse.Namespace) -> str:
    """A row for each learner and each kind of statistics, with the paired differences to the first learner."""
    first: dict[int, Evaluation] = {}
    rows = []
    for name in names:
        cost = json.loads((options.out / name / "cost.json").read_text())
        found = [result for result in read_evaluations(options.out / name) if is_asked_for(result, options)]
        for statistics in dict.fromkeys(result.protocol.statistics for result in found):
            results = {r.protocol.shots: r for r in found if r.protocol.statistics == statistics}
            first = first or results
            row = {"learner": name, "statistics": statistics}
            for shots in options.shots:
                result = results[shots]
                row[f"{shots}-shot"] = ACCURACY.text(result.mean, result.ci95)
                difference = compare(result, first[shots])
                paired = ACCURACY.text(difference.mean, difference.ci95, True)
                row[f"minus {names[0]}, {shots}-shot"] = paired if name != names[0] else ""
                row[f"s / 1000 tasks, {shots}-shot"] = f"{1000 * result.seconds / options.tasks:.0f}"
            seconds = f"{cost['seconds']:.0f}" if cost["whole"] else "interrupted"
            rows.append(row | {"tasks": cost["tasks"], "training, s": seconds, "MiB": f"{cost['memory']:.0f}"})
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def is_asked_for(result: Evaluation, options: argparse.Namespace) -> bool:
    at = result.protocol
    return (at.queries, at.tasks, at.split) == (options.queries, options.tasks, "test")


if __name__ == "__main__":
    main()
