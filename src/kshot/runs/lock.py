"""One writer at a time: a folder is locked while it is written, and a second writer is told who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from kshot.errors import ConfigError
from kshot.files import refusal, write_json

LOCK, HOLDER = ".lock", ".holder.json"


@contextmanager
def locked(folder: Path, *, doing: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; the same process may hold it several times over.

    The operating system releases the lock of a process that dies, so that no lock is ever stale.

    Parameters
    ----------
    folder
        What is about to be written.
    doing
        What this process does there, for the message to a second one: "being trained".

    Raises
    ------
    ConfigError
        At once, if another process holds the lock, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except filelock.Timeout:
        raise ConfigError(f"{folder} is {_held_by(folder)}; wait for it to end, or choose another folder") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {refusal(error)}") from error
    try:
        write_json(
            folder / HOLDER, {"doing": doing, "process": os.getpid(), "host": socket.gethostname(), "since": _now()}
        )
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether another process holds the lock of a folder at this moment."""
    if not (folder / LOCK).exists():
        return False
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            return False
    except (filelock.Timeout, OSError):
        return True


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _held_by(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"{holder['doing']} by process {holder['process']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has the lock, and has not yet said who it is
        return "in use by another process"
