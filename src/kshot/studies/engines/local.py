"""Cells as processes of this machine, each with its own threads."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from kshot.errors import ConfigError
from kshot.studies.cell_folder import CellFolder
from kshot.studies.engines.base import Ended, Engine, EngineOptions, Job

_PARENT_DEATH_SIGNAL = 1  # of prctl
_PATIENCE = 600.0  # seconds that a process may take to end its step and to save


def environment(threads: int, gpu: int | None = None) -> dict[str, str]:
    """The environment of the process of a cell: its threads, and its GPU if it has one of its own."""
    # as the kshot command sets it: threads that spin for long starve those they wait for
    pinned = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "100000"}
    return {**os.environ, **pinned} | ({"CUDA_VISIBLE_DEVICES": str(gpu)} if gpu is not None else {})


def command(folder: CellFolder | Path, *, root: Path | str | None, version: str | None = None) -> list[str]:
    """The command that works at a cell; `version` is what it must find, or None if it cannot differ."""
    path = folder.path if isinstance(folder, CellFolder) else folder
    words = [sys.executable, "-m", "kshot.studies", str(path), *([] if version is None else ["--expect", version])]
    return words + ([] if root is None else ["--root", str(root)])


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Let the kernel end this process when its parent dies, as the job of a lost machine does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, by)


def last_words(log: Path) -> str:
    """The last line of a log."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


class Local(Engine):
    """Subprocesses, as many at once as cores or GPUs allow."""

    def __init__(self, options: EngineOptions, *, root: Path | str | None, version: str) -> None:
        super().__init__(options, root=root, version=version)
        gpus = torch.cuda.device_count() if options.gpus else 0
        if options.gpus and not gpus:
            raise ConfigError("gpus is given, but torch sees no GPU here; leave it out")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._places = options.workers or gpus or max(1, cores // options.threads)
        self._gpus = gpus
        self._running: dict[str, tuple[int, CellFolder, subprocess.Popen[bytes]]] = {}

    def start(self, job: Job) -> bool:
        """Start the process of a cell, if a worker is free."""
        taken = {place for place, _, _ in self._running.values()}
        free = [place for place in range(self._places) if place not in taken]
        if not free:
            return False
        gpu = free[0] % self._gpus if self._gpus else None
        with open(job.folder.log_path, "ab") as log:
            process = subprocess.Popen(
                command(job.folder, root=self.root),
                env=environment(self.options.threads, gpu),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the study alone, which then stops its cells one by one
                preexec_fn=end_with_parent,
            )
        self._running[job.folder.name] = (free[0], job.folder, process)
        return True

    def ended(self) -> list[Ended]:
        """The processes that have ended."""
        over = []
        for name, (place, folder, process) in list(self._running.items()):
            code = process.poll()
            if code is not None:
                del self._running[name]
                over.append(Ended(name, code, f"worker {place}", last_words(folder.log_path) if code else ""))
        return over

    def stop(self) -> None:
        """SIGTERM to every process, which ends after its step; a second Ctrl-C kills them."""
        processes = [process for _, _, process in self._running.values()]
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        try:
            for process in processes:
                process.wait(max(0.1, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: the last checkpoints remain
            for process in processes:
                process.kill()
        self._running = {}
