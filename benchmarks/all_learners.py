"""Every learner of kshot, trained for the same processor time and measured on the same tasks, in one table.

    OMP_NUM_THREADS=1 python benchmarks/all_learners.py --data cifar-fs --minutes 10 --out runs/all-cifar-fs

All have the same network, Conv4, and otherwise the options of a recipe of theirs, but that the rate falls along a
cosine over as many steps as fit into the minutes of processor time, which short trials find out first. One training on
5-shot tasks serves all numbers of shots. TSA-MAML spends half of its time on MAML, of whose trial it takes the speed.
Each training is a process of its own, whose processor time and peak memory the table shows; evaluations are timed by
the clock, features of the test images included.

What is done is not done again, and a training that was interrupted goes on: run the command once more, also to print
the table, or several at a time, each with some of the --learners.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import describe_machine
from tabulate import tabulate

from kshot.evaluation.results import Evaluation, compare
from kshot.files import write_text
from kshot.measures import ACCURACY
from kshot.runs.run import Run

VALIDATION_TASKS, SECONDS_OF_A_TRIAL = 50, 8


@dataclass(frozen=True)
class Setting:
    """The recipe of a learner, what differs from it, and the option that is told how many tasks the training has."""

    recipe: str
    changes: str = ""
    length: str | None = None


SETTINGS = {
    "mtl": Setting("mtl-cifar-fs-5shot-conv4"),
    "supervised": Setting("supervised-cifar-fs-conv4"),
    "protonet": Setting("protonet-cifar-fs-5shot-conv4"),
    "matching-net": Setting("matching-net-cifar-fs-5way-5shot"),
    "tadam": Setting("tadam-fc100-5way-5shot", length="learner.cotraining-tasks"),
    "r2d2": Setting("r2d2-cifar-fs-5way-5shot"),
    "metaoptnet-svm": Setting("metaoptnet-cifar-fs-5way-5shot", "--learner.head svm"),
    "metaoptnet-ridge": Setting("metaoptnet-cifar-fs-5way-5shot"),
    "maml": Setting("maml-cifar-fs-5way-5shot"),
    "fomaml": Setting("fomaml-cifar-fs-5way-5shot"),
    "anil": Setting("anil-mini-imagenet-5way-5shot"),
    "imaml": Setting("imaml-cifar-fs-5way-5shot"),
    "reptile": Setting("reptile-cifar-fs-5way-5shot"),
    "minibatch-prox": Setting("reptile-cifar-fs-5way-5shot", "--learner minibatch-prox"),
    "tsa-maml": Setting("tsa-maml-cifar-fs-5way-5shot"),
    "meta-lstm": Setting("meta-lstm-cifar-fs-5way-5shot"),
    "mmaml": Setting("mmaml-cifar-fs-5way-5shot"),
    "hsml": Setting("hsml-cifar-fs-5way-5shot"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glyphs")
    parser.add_argument("--minutes", type=float, default=10, help="of processor time for each training")
    parser.add_argument("--epochs", type=int, default=10, help="parts of the training, with a validation after each")
    parser.add_argument("--width", type=int, default=32, help="filters of Conv4")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--learners", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options = parser.parse_args()
    check_folder(options)
    for name in options.learners:
        if not cost_file(name, options).exists():
            train(name, options)
        measure(name, options)
    results = {name: measured(name, options) for name in SETTINGS if cost_file(name, options).exists()}
    print(describe_machine())
    print(table({name: found for name, found in results.items() if found}, options))


def check_folder(options: argparse.Namespace) -> None:
    """Refuse a folder whose runs are of other data, minutes or networks."""
    own = {name: getattr(options, name) for name in ("data", "minutes", "epochs", "width")}
    file = options.out / "options.json"
    if not file.exists():
        write_text(file, json.dumps(own))
    elif json.loads(file.read_text()) != own:
        raise SystemExit(f"{options.out} holds runs with {file.read_text()}; choose another folder with --out")


def cost_file(name: str, options: argparse.Namespace) -> Path:
    return options.out / f"{name}.json"


def train(name: str, options: argparse.Namespace) -> None:
    run, log = options.out / name, options.out / f"{name}.log"
    each = tasks_of_an_epoch("maml" if name == "tsa-maml" else name, options)
    command, lengths, epochs = ["train"], {"max-epochs": options.epochs}, options.epochs
    if name == "tsa-maml":  # a task of the groups costs twice one of MAML, a solution about one
        budget, half = epochs * each, max(1, epochs // 2)
        command = ["tsa", "train"]
        lengths = {"pretraining-epochs": half, "max-epochs": max(1, half // 2), "solutions": min(300, budget // 8)}
        epochs = half + lengths["max-epochs"]
        each = (budget - lengths["solutions"]) // (epochs + lengths["max-epochs"])
    words = [*command, *options_of(name, options, each, epochs), *flags(lengths), "--run", str(run)]
    begun = (run / "checkpoints" / "last.pt").exists() or (run / "stages.yaml").exists()
    print(f"{name}: {epochs * each} tasks", flush=True)
    seconds, memory = call([*command, "--resume", str(run)] if begun else words, log)
    cost = {"seconds": None if begun else seconds, "memory": memory, "tasks": epochs * each}
    write_text(cost_file(name, options), json.dumps(cost))


def tasks_of_an_epoch(name: str, options: argparse.Namespace) -> int:
    """How many tasks fit into an epoch, by trials of few tasks, with a second epoch of them, and of more and more."""
    tasks, spent = 8, trial(name, options, 8)
    end_of_epoch, longer = trial(name, options, 8, epochs=2) - spent, trial(name, options, 32)
    while longer - spent < SECONDS_OF_A_TRIAL:
        tasks, spent, longer = 4 * tasks, longer, trial(name, options, 16 * tasks)
    task = (longer - spent) / (3 * tasks)
    validation = max(0.0, end_of_epoch - 8 * task)
    start = max(0.0, spent - tasks * task - validation)
    each = int(((60 * options.minutes - start) / options.epochs - validation) / task)
    if each < 1:
        raise SystemExit(f"{options.minutes:g} minutes are too short for {name}, whose validation alone takes longer")
    return each


def trial(name: str, options: argparse.Namespace, tasks: int, epochs: int = 1) -> float:
    """Processor seconds of a training with epochs of so many tasks, and a validation after each."""
    run = options.out / "trials" / f"{name}-{epochs}x{tasks}"
    cost = run / "cost.json"
    if not cost.exists():
        shutil.rmtree(run, ignore_errors=True)  # one that was interrupted
        words = ["train", *options_of(name, options, tasks, epochs), "--max-epochs", str(epochs), "--run", str(run)]
        seconds, _ = call(words, options.out / f"{name}.log")
        write_text(cost, json.dumps(seconds))
    return float(json.loads(cost.read_text()))


def options_of(name: str, options: argparse.Namespace, tasks: int, epochs: int) -> list[str]:
    setting = SETTINGS[name]
    common = {"data": options.data, "backbone": "conv4", "backbone.width": options.width}
    common |= {"backbone.pooling": "flatten", "tasks-per-epoch": tasks, "validation-tasks": VALIDATION_TASKS}
    common |= {"schedule": "cosine", "patience": 0, "precision": "float32"}
    common |= {setting.length: epochs * tasks} if setting.length else {}
    return ["--recipe", setting.recipe, *flags(common), *setting.changes.split()]


def flags(values: dict[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def call(words: Sequence[str], log: Path) -> tuple[float, float]:
    """Processor seconds and peak MiB of a `kshot` command that must succeed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        print("kshot", *words, file=file, flush=True)
        process = subprocess.Popen([sys.executable, "-m", "kshot", *words], stdout=file, stderr=file)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:  # which kshot got, too: it saves the run
            process.wait()
            raise
    if status != 0:
        raise SystemExit(f"kshot {' '.join(words)} failed; see {log}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measure(name: str, options: argparse.Namespace) -> None:
    """Evaluate the run with every kind of statistics and shots, but for what was done before."""
    run = Run(options.out / name)
    done = measured(name, options)
    for statistics, shots in itertools.product(run.learner.statistics_offered, options.shots):
        if (statistics, shots) not in done:
            sizes = {"ways": 5, "shots": shots, "queries": options.queries, "tasks": options.tasks}
            run.evaluate(**sizes, statistics=statistics, progress=sys.stderr.isatty())


def measured(name: str, options: argparse.Namespace) -> dict[tuple[str, int], Evaluation]:
    """The evaluations of a run on the tasks of the table, by statistics and shots."""
    return {
        (at.statistics, at.shots): result
        for result in Run(options.out / name).evaluations
        if ((at := result.protocol).queries, at.tasks, at.seed) == (options.queries, options.tasks, 0)
    }


def table(results: dict[str, dict[tuple[str, int], Evaluation]], options: argparse.Namespace) -> str:
    """A row for each learner and each kind of statistics, with the paired differences to the first learner.

    What another process has not measured yet is left empty.
    """
    reference = next(iter(results))
    first = {shots: result for (_, shots), result in results[reference].items()}
    rows = []
    for name, found in results.items():
        cost = json.loads(cost_file(name, options).read_text())
        seconds = "interrupted" if cost["seconds"] is None else f"{cost['seconds']:.0f}"
        for statistics in dict.fromkeys(statistics for statistics, _ in found):
            own = {shots: found[statistics, shots] for shots in options.shots if (statistics, shots) in found}
            row = [name, statistics]
            for shots in options.shots:
                row += accuracy_cells(own.get(shots), first.get(shots) if name != reference else None)
            speeds = [f"{1000 * result.seconds / options.tasks:.0f}" for result in own.values()]
            rows.append([*row, f"{cost['tasks']:,}", seconds, " / ".join(speeds), f"{cost['memory']:.0f}"])
    accuracies = [header for shots in options.shots for header in (f"{shots}-shot", f"minus {reference} (paired)")]
    evaluation = f"s / 1000 tasks, {' / '.join(map(str, options.shots))} shots"
    headers = ["learner", "statistics", *accuracies, "tasks seen", "training, CPU s", evaluation, "peak MiB"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def accuracy_cells(result: Evaluation | None, reference: Evaluation | None) -> list[str]:
    """Accuracy, and its difference to the reference, of what was measured."""
    if result is None:
        return ["", ""]
    accuracy = ACCURACY.text(result.mean, result.ci95)
    if reference is None:
        return [accuracy, ""]
    difference = compare(result, reference)
    return [accuracy, ACCURACY.text(difference.mean, difference.ci95, True)]


if __name__ == "__main__":
    main()
