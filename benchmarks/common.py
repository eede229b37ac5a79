"""What every benchmark shares: timings that are fair to both sides, and a line about the machine they ran on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from kshot.memory import return_freed_memory
from kshot.runs.environment import cpu_name


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each function over `repeats` rounds, every round calling all of them in turn.

    Taking turns spreads a slow spell of the machine over all contestants, so that their RATIO holds where the seconds
    do not. One round before the first warms caches and is not counted. A function that starts work on a GPU must end
    with ``torch.cuda.synchronize()``. With ``time.process_time`` as `clock`, seconds are those of the processor, which
    hold on a machine that is busy with other work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if round_number > 0:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def added_memory(make: Callable[..., Callable[[], object]], *arguments: object) -> float:
    """MiB by which a second call of ``make(*arguments)`` raises the peak of a process of its own; needs Linux."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_second_call, make, arguments).result()


def _second_call(make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> float:
    function = make(*arguments)
    function()
    return_freed_memory()
    return peak_of(function)


def peak_of(function: Callable[[], object]) -> float:
    """MiB by which a call raises this process's peak above what it held; needs Linux, whose peak can be reset."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_of_process("VmRSS")
    function()
    return memory_of_process("VmHWM") - before


def memory_of_process(field: str) -> float:
    """A figure of /proc/self/status, such as VmRSS, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def describe_machine() -> str:
    """Processor, core and thread counts, GPU when there is one, and the versions of Python and torch, on one line."""
    parts = [
        cpu_name(),
        f"{os.cpu_count()} cores",
        f"{torch.get_num_threads()} torch threads",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
    ]
    if torch.cuda.is_available():
        parts.insert(0, torch.cuda.get_device_name())
    return ", ".join(parts)
