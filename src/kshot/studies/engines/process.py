"""The process of a cell inside a job of an engine: it ends with the job, and saves itself if the job is stopped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from kshot.studies.engines.local import command, end_with_parent, environment, last_words

_WAIT = 0.2  # seconds between looks


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
