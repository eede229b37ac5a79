"""The process of a cell inside a job of an engine: it ends with the job, and saves itself if the job is stopped."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kshot.studies.engines.local import command, environment, last_words

_PARENT_DEATH_SIGNAL = 1  # of prctl
_WAIT = 0.2  # seconds between looks


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Let the kernel end this process when its parent dies, as the job of a lost machine does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, by)


def run_process(
    folder: Path,
    *,
    root: Path | str | None,
    version: str,
    threads: int,
    place: str,
    between: Callable[[], bool] = lambda: False,
) -> tuple[int, str]:
    """Run a cell in a process; returns its exit code and what it printed last.

    between: called between looks at the process; True asks it to save itself and to end.
    """
    log = folder / "log.txt"
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command(folder, root=root, version=version),
            env=environment(threads) | {"KSHOT_PLACE": place},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            preexec_fn=end_with_parent,
        )
        try:
            while process.poll() is None:
                if between():
                    process.terminate()
                    process.wait()
                time.sleep(_WAIT)
        except BaseException:  # Ctrl-C, or the end of the job
            process.terminate()
            process.wait()
            raise
    return process.returncode, last_words(log) if process.returncode else ""
