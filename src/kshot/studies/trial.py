"""A short trial of a training, in a process of its own: what a task, a validation and a measurement cost here.

`python -m kshot.studies.trial CELL.yaml OUT.json [--root ROOT] [--seconds S]`
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from kshot import data as datasets
from kshot.data.tasks import AnyDataset
from kshot.errors import DataError, KshotError
from kshot.files import write_json
from kshot.learners import TSAMAML
from kshot.memory import peak_memory
from kshot.runs.measurement import Measurement
from kshot.runs.run import Run
from kshot.studies.budget import Costs
from kshot.studies.build import build_learner, images_per_task, resolved_length, training_options
from kshot.studies.cells import Cell
from kshot.studies.stand_in import stand_in
from kshot.training.loop import train

_CERTAIN = 0.25  # seconds between two validations, or two measurements, of different sizes
_MOST = 4096  # tasks of a validation or of a measurement


def measure_costs(cell: Cell, data: AnyDataset, *, seconds: float, loaded: float) -> dict[str, Any]:
    """What the trial found: the costs, and the length of the whole training.

    Parameters
    ----------
    cell
        Whose training is tried.
    data
        Its dataset, or what stands in for it.
    seconds
        How long the training of the trial takes, about.
    loaded
        Seconds that the process has taken until now, imports included.
    """
    learner = build_learner(cell.options, data, seed=cell.seed)
    tried = learner.pretraining_learner() if isinstance(learner, TSAMAML) else learner
    options = training_options(cell)
    step = options.meta_batch or learner.meta_batch
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time

    def trained(tasks: int, validations: int, run: Path | None = None) -> tuple[float, Run]:
        few = {"tasks_per_epoch": tasks, "max_epochs": 1, "validation_tasks": validations, "patience": 0}
        begun = clock()
        made = train(tried, data, run=run, resume=False, **options.plain() | few)
        return clock() - begun, made

    trained(step, 2)  # what only the first step costs
    start, each_step = fixed_and_each(lambda steps: trained(steps * step, 2)[0], at_least=seconds / 2)
    _, validation = fixed_and_each(lambda tasks: trained(step, tasks)[0], first=2, at_least=_CERTAIN)
    with tempfile.TemporaryDirectory() as folder:
        _, run = trained(step, 2, Path(folder) / "run")
        megabytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**20
        costs = Costs(
            start=loaded + start,
            task=max(1e-9, each_step / step),
            validation=validation,
            measuring=_measuring(cell, run, clock),
            memory=peak_memory(torch.device("cuda" if on_gpu else "cpu")),
            disk=megabytes,
            seconds_are="clock" if clock is time.perf_counter else "processor",
        )
    length = resolved_length(cell.options, learner, data)["training"]
    found = {"costs": asdict(costs), "max_epochs": length["max_epochs"], "tasks_per_epoch": length["tasks_per_epoch"]}
    return found | {
        "images_per_task": images_per_task(cell.options, learner, data),
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
    }


def _measuring(cell: Cell, run: Run, clock: Callable[[], float]) -> float:
    """Seconds of all measurements of a cell: what they cost whatever their number of tasks, and each task."""
    measurement, _ = Measurement.of(dict(cell.measure))  # type: ignore[arg-type]

    def measured(tasks: int) -> float:
        begun = clock()
        run.evaluate(**dict(cell.measure) | {"tasks": tasks})
        return clock() - begun

    fixed, task = fixed_and_each(measured, first=2, at_least=_CERTAIN)
    return fixed + measurement.tasks * task


def fixed_and_each(measured: Callable[[int], float], *, first: int = 1, at_least: float) -> tuple[float, float]:
    """What none costs and what each adds, by two sizes whose times differ by a quarter of the smaller one, or more.

    Parameters
    ----------
    measured
        The seconds of a size.
    first
        The smaller size to begin with.
    at_least
        Seconds between the times of the two sizes, one of which is twice the other.
    """
    size, small, large = first, measured(first), measured(2 * first)
    while large - small < max(at_least, small / 4) and 2 * size < _MOST:
        size, small, large = 2 * size, large, measured(4 * size)
    each = max(0.0, (large - small) / size)
    return max(0.0, small - size * each), each


def main(arguments: Sequence[str] | None = None) -> int:
    """Try one cell and write what was found, or the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args(arguments)
    cell = Cell(**yaml.safe_load(given.cell.read_text(encoding="utf-8")))
    found: dict[str, Any] = {"on": "its data"}
    try:
        try:
            data: AnyDataset = datasets.load(cell.dataset, given.root)
        except DataError:
            data, found["on"] = stand_in(cell), "random images of its form"
        found |= measure_costs(cell, data, seconds=given.seconds, loaded=time.process_time())
    except KshotError as error:
        found["error"] = str(error)
    except (MemoryError, RuntimeError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    write_json(given.out, found)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
