"""`kshot study`: a paper's table by one command: plan, run, status, report."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import Namespace
from tabulate import tabulate

from kshot.cli.dispatch import dispatch
from kshot.cli.options import ROOT_TEXT, Options
from kshot.errors import check_choice
from kshot.studies import EngineOptions, Status, Study, study_file
from kshot.studies.cells import cells_of
from kshot.studies.engines import ENGINES

_HELP = """usage: kshot study list|plan|run|status|report [NAME] [options]

A study is a grid of trainings, by a paper's table for instance: a name that kshot ships, or a YAML file.

commands:
  list            the studies that kshot ships
  plan NAME       its cells, which data is missing, what each costs; nothing is run but short trials
  run NAME        run what is not done yet; what was begun goes on where it stopped
  status NAME     which cells are done, running with time left, or failed
  report NAME     write one page with the table, and the table as Markdown, CSV and LaTeX

examples:
  kshot study plan w21-table3 --data cifar-fs
  kshot study run all-learners --data glyphs --budget 10min-per-cell
  kshot study status all-learners --watch true
  kshot study report all-learners

`kshot study run --help` (plan, status, report) explains the options.
"""
_SECONDS_BETWEEN_LOOKS = 5.0
_NOT_SIMULATED = {"workers", "gpus", "address", "partition", "slurm_local"}


def run(arguments: Sequence[str]) -> None:
    """Dispatch to list, plan, run, status or report."""
    actions = {"list": _list, "plan": _plan, "run": _run, "status": _status, "report": _report}
    dispatch("kshot study", arguments, actions, help_text=_HELP)


def add_study(options: Options) -> None:
    """Add the options that name a study and its folder."""
    options.add("study", str, text="a name of kshot study list, or a YAML file")
    options.add("--out", Path | None, text="folder of the study; null for studies/NAME", metavar="FOLDER")


def _options(command: str, function: Callable[..., None]) -> Options:
    options = Options.of(f"kshot study {command}", function, positional="NAME")
    add_study(options)
    options.add("--data", list[str] | None, text="the datasets whose cells are wanted; null for all")
    options.add("--seeds", list[int] | None, text="training seeds; null for those of the study")
    text = (
        "what each cell may cost: full, as the recipes say, or a time such as 10min-per-cell; null for the study's own"
    )
    options.add("--budget", str | None, text=text)
    options.add("--root", Path | None, text=ROOT_TEXT)
    return options


def _study(given: Namespace) -> Study:
    return Study(
        given.study, folder=given.out, root=given.root, budget=given.budget, seeds=given.seeds, data=given.data
    )


def _list(arguments: Sequence[str]) -> None:
    """List the studies that kshot ships.

    Examples
    --------
    kshot study list
    """
    Options.of("kshot study list", _list).parse(arguments)
    rows = []
    for name in study_file.names():
        study = study_file.load(name)
        cells = cells_of(study)
        rows.append([name, len(cells), ", ".join(dict.fromkeys(cell.dataset for cell in cells)), study.title])
    print(tabulate(rows, headers=["study", "cells", "data", "what it is"], maxcolwidths=[None, None, 40, 60]))


def _plan(arguments: Sequence[str]) -> None:
    """Say what a study costs: its cells, which data is missing and where it can be had, and time, memory and disk
    from a short trial of each training on this machine. Nothing else is run.

    Examples
    --------
    kshot study plan w21-table3
    kshot study plan z21-table3 --engine ray --workers 64 --simulate
    """
    options = _options("plan", _plan)
    options.add("--cells", str | None, text="a pattern of cells' names, such as maml-*; null for all")
    options.add(
        "--trial-seconds",
        float,
        default=4.0,
        text="how long each trial trains, about; 0 for no trials but those of before",
    )
    options.add("--simulate", bool, default=False, text="say what a schedule on the workers would take")
    options.add("--workers", int, default=1, text="for the simulation: cells at once")
    options.add("--engine", str, default="local", text="for the simulation: local, ray or slurm")
    options.add_signature(EngineOptions, "simulation, and the threads of a trial", skip=_NOT_SIMULATED)
    given = options.parse(arguments)
    study = _study(given)
    # before the trials, which take a while
    check_choice("engine", given.engine, tuple(ENGINES))
    simulated = EngineOptions.__dataclass_fields__.keys() - _NOT_SIMULATED
    engine_options = EngineOptions(workers=given.workers, **{name: given[name] for name in simulated})
    plan = study.plan(cells=given.cells, trial_seconds=given.trial_seconds, threads=given.threads, say=_to_errors)
    print(plan)
    if given.simulate:
        print(f"\n{study.simulate(plan, engine=given.engine, options=engine_options)}")


def _run(arguments: Sequence[str]) -> None:
    """Run what is not done yet. What was begun goes on where it stopped, bit for bit; Ctrl-C leaves everything so
    that the same command goes on. Several runners may share a study: each cell has one at a time. The exit status is 1
    if a cell has failed.

    Examples
    --------
    kshot study run w21-table3 --budget 10min-per-cell --data cifar-fs
    kshot study run all-learners --cells maml-* --workers 2
    kshot study run z21-table2 --engine ray --address auto --workers 64
    """
    options = _options("run", _run)
    options.add("--cells", str | None, text="a pattern of cells' names, such as maml-*; null for all")
    options.add("--engine", str, default="local", text="local, ray or slurm")
    options.add_signature(EngineOptions, "engine")
    options.add(
        "--retries", int, default=1, text="how often a cell is tried again that was killed, or lost its machine"
    )
    options.add(
        "--retry-failed", bool, default=False, text="try cells again that failed in a way that would repeat itself"
    )
    options.add("--trial-seconds", float, default=4.0, text="how long the trial of each training lasts, about")
    given = options.parse(arguments)
    study = _study(given)
    engine_options = EngineOptions(**{name: given[name] for name in EngineOptions.__dataclass_fields__})
    try:
        outcome = study.run(
            cells=given.cells,
            engine=given.engine,
            options=engine_options,
            retries=given.retries,
            retry_failed=given.retry_failed,
            trial_seconds=given.trial_seconds,
            say=_say,
            tick=_progress_line() if sys.stderr.isatty() else None,
        )
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{study.status().summary}; the same command goes on") from stop
    status = study.status()
    print(f"\n{status.summary}")
    for place, why in outcome.refused.items():
        print(f"refused  {place}: {why}")
    print(f"next     {study.command('report')}")
    if any(status.cells[cell.name].state == "failed" for cell in study.matching(given.cells)):
        raise SystemExit(1)


def _status(arguments: Sequence[str]) -> None:
    """Show how far each cell is.

    Examples
    --------
    kshot study status all-learners --watch true
    """
    options = _options("status", _status)
    options.add("--watch", bool, default=False, text="show it again every few seconds, until all is done")
    given = options.parse(arguments)
    study = _study(given)
    status = study.status()
    print(status)
    while given.watch and not status.complete:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        status = study.status()
        print(f"\n{status}", flush=True)


def _report(arguments: Sequence[str]) -> None:
    """Write one self-contained page: the table with published and measured values and their intervals, costs,
    paired comparisons, curves, the plan; and the table as Markdown, CSV and LaTeX, in the study's folder.

    Examples
    --------
    kshot study report all-learners
    """
    options = _options("report", _report)
    study = _study(options.parse(arguments))
    print(f"wrote {study.report()}, and beside it table.md, table.csv, table.tex and paired.csv")


def _say(line: str) -> None:
    print(line, flush=True)


def _to_errors(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress_line() -> Callable[[Status], None]:
    """Shows the summary on a line of the terminal, at most every few seconds."""
    shown = [0.0]

    def tick(status: Status) -> None:
        if time.monotonic() - shown[0] > _SECONDS_BETWEEN_LOOKS:
            shown[0] = time.monotonic()
            print(f"\r{status.summary}\033[K", end="", file=sys.stderr, flush=True)

    return tick
