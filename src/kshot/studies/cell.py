"""The process of one cell: train or go on, measure, and write result.json; whatever happens, nothing done is lost.

    python -m kshot.studies FOLDER [--root ROOT] [--expect VERSION@COMMIT]

It can be started any number of times, on any machine that has the folder: what is done is not done again, and a second
process of the same cell ends at once. Exit codes: 0 done, 1 failed (failure.json says why), 75 another process has the
cell, 76 another version of kshot, 130 stopped by a signal and resumable.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kshot.errors import NO_MEMORY, ConfigError, DivergenceError, KshotError
from kshot.evaluation.results import Evaluation
from kshot.files import without_nan, write_json
from kshot.intervals import mean_interval
from kshot.runs import lock
from kshot.runs.environment import describe_environment
from kshot.runs.measurement import Measurement
from kshot.runs.run import Run
from kshot.studies.budget import length_of
from kshot.studies.build import build_learner, images_per_task, train_cell
from kshot.studies.cell_folder import CellFolder
from kshot.studies.cells import Cell

DONE, FAILED, TAKEN, OTHER_VERSION, STOPPED = 0, 1, 75, 76, 130


def version() -> str:
    """What must be the same in all processes of a study: the version of kshot, and its commit if that is known."""
    environment = describe_environment()
    return f"{environment['kshot']}@{environment['git_commit'] or 'no commit'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Work on one cell; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=CellFolder)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--expect")
    given = parser.parse_args(arguments)
    return run_cell(given.folder, root=given.root, expect=given.expect)


def run_cell(folder: CellFolder, *, root: Path | str | None = None, expect: str | None = None) -> int:
    """Work on a cell until it is done, fails or is stopped; returns the exit code."""
    if expect is not None and expect != (here := version()):
        print(f"{_place()} has kshot {here}, and the study runs {expect}; install the same there", file=sys.stderr)
        return OTHER_VERSION
    try:
        with lock.locked(folder.path, doing="being worked at"):
            if folder.result_path.exists():
                return DONE
            return _work(folder, root)
    except KeyboardInterrupt as stop:
        print(stop or "stopped", file=sys.stderr)
        return STOPPED
    except ConfigError as error:  # of the lock
        print(error, file=sys.stderr)
        return TAKEN


def _work(folder: CellFolder, root: Path | str | None) -> int:
    try:
        with _sitting(folder):
            cell = folder.read()
            run = train_cell(cell, folder.run_path, root=root)
            measurement, _ = Measurement.of(dict(cell.measure))  # type: ignore[arg-type]
            results = run.measure(measurement, reuse=True)
        write_json(folder.result_path, _result(folder, cell, run, results))
        folder.forget_failure()
        return DONE
    except KshotError as error:
        # a training that diverges does so again, and wrong options stay wrong; files may come back
        lasting = isinstance(error, (DivergenceError, ConfigError)) and "cannot be written" not in str(error)
        return _failed(folder, str(error), lasting)
    except OSError as error:
        full = " (the disk is full)" if error.errno == errno.ENOSPC else ""
        return _failed(folder, f"{error}{full}", False)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in NO_MEMORY):
            traceback.print_exc()
            return _failed(folder, f"{type(error).__name__}: {error}; log.txt has more", True)
        return _failed(folder, f"there is not enough memory on {_place()}", False)


def _failed(folder: CellFolder, message: str, lasting: bool) -> int:
    print(message, file=sys.stderr)
    folder.fail(" ".join(message.split()), lasting=lasting, place=_place())
    return FAILED


def _place() -> str:
    return os.environ.get("KSHOT_PLACE", socket.gethostname())


@contextmanager
def _sitting(folder: CellFolder) -> Iterator[None]:
    """Note who works at the cell since when, and at the end how long it took; a kill leaves no seconds."""
    sittings = folder.sittings()
    begun = describe_environment() | {"place": _place(), "seconds": None, "processor_seconds": None}
    folder.write_sittings([*sittings, begun])
    clock, processor = time.perf_counter(), _processor_seconds()
    try:
        yield
    finally:
        spent = {"seconds": time.perf_counter() - clock, "processor_seconds": _processor_seconds() - processor}
        folder.write_sittings([*sittings, begun | spent])


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _result(folder: CellFolder, cell: Cell, run: Run, results: Sequence[Evaluation]) -> dict[str, Any]:
    sittings = folder.sittings()
    known = all(each["seconds"] is not None for each in sittings)
    last = sittings[-1]
    hardware = {name: last[name] for name in ("cpu", "cores", "gpu", "threads", "processes", "platform")}
    epochs = len(run.metrics()["epoch"])
    each = images_per_task(cell.options, build_learner(cell.options, run.data, seed=cell.seed), run.data)
    tasks = _tasks(cell.options, epochs)
    return {
        "cell": cell.plain(),
        "version": sorted({f"{one['kshot']}@{one['git_commit']}" for one in sittings}),
        "hardware": hardware | {"torch": last["torch"], "python": last["python"]},
        # of a cell that was killed they are not known, and a lower bound would mislead
        "seconds": sum(one["seconds"] for one in sittings) if known else None,
        "processor_seconds": sum(one["processor_seconds"] for one in sittings) if known else None,
        "sittings": len(sittings),
        "epochs": epochs,
        "tasks": tasks,
        "images": tasks * each,
        "weights": run.weights,
        "measured": [describe_evaluation(result) for result in results],
    }


def _tasks(options: Mapping[str, Mapping[str, Any]], epochs: int) -> int:
    """The training tasks of so many epochs, those of TSA-MAML's pretraining and of its solutions included."""
    planned, each, _ = length_of(options)
    stages = options.get("stages")
    before = planned - options["training"]["max_epochs"] if stages else 0
    return (before + epochs) * each + (stages["solutions"] if stages else 0)


def describe_evaluation(result: Evaluation) -> dict[str, Any]:
    """A measurement without its values per task, which the run keeps."""
    domains = result.by_domain()
    shown = {name: mean_interval(part.values)._asdict() for name, part in domains.items() if len(domains) <= 10}
    at = result.protocol
    return without_nan(
        {
            "dataset": at.dataset,
            "split": at.split,
            "ways": at.ways,
            "shots": at.shots,
            "queries": at.queries,
            "tasks": at.tasks,
            "seed": at.seed,
            "statistics": at.statistics,
            "adaptation": result.adaptation,
            "measure": result.measure.name,
            "mean": result.mean,
            "ci95": result.ci95,
            "seconds": result.seconds,
            "domains": {name: without_nan(part) for name, part in shown.items()} if len(shown) > 1 else {},
        }
    )
