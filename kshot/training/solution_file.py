"""The solutions of many tasks as one array on disk, written row after row by processes that may be killed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kshot.errors import CheckpointError
from kshot.files import write_json

FloatArray = NDArray[np.float32]


class SolutionFile:
    """``solutions.npy`` (tasks, size) float32 in a folder, of which the first `done` rows are written.

    ``progress.json`` beside it says how many these are and, in `origin`, what they were computed from. It is replaced
    only after the rows have reached the disk, so that a process that goes on never trusts half a row.

    Raises CheckpointError where the folder holds rows of another origin, or fewer than it says.
    """

    def __init__(self, folder: Path, tasks: int, size: int, origin: Mapping[str, Any]) -> None:
        self.path, self.progress = folder / "solutions.npy", folder / "progress.json"
        self.shape, self._row_bytes = (tasks, size), 4 * size
        self.origin = json.loads(json.dumps(dict(origin) | {"tasks": tasks, "size": size}))  # as it is read again
        self.done = self._written()

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self.done == self.shape[0]

    def append(self, rows: FloatArray) -> None:
        """Write the next rows (R, size); CheckpointError where the disk refuses: the earlier ones are then kept."""
        try:
            if self.done == 0:
                self._begin()
            with open(self.path, "r+b") as file:
                file.seek(self._header_bytes(file) + self.done * self._row_bytes)
                file.write(np.ascontiguousarray(rows, np.float32).tobytes())
                file.flush()
                os.fsync(file.fileno())
            write_json(self.progress, {"done": self.done + len(rows), "origin": self.origin})
        except OSError as error:
            raise CheckpointError(
                f"{self.path} could not be written ({error}); its first {self.done} rows are kept: free some space "
                f"({self.shape[0] * self._row_bytes / 1e9:.1f} GB in all) and resume the run"
            ) from error
        self.done += len(rows)

    def read(self) -> FloatArray:
        """All rows (tasks, size), memory-mapped, once they are complete."""
        return np.load(self.path, mmap_mode="r")

    def _begin(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        with open(self.path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)

    @staticmethod
    def _header_bytes(file: Any) -> int:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()

    def _written(self) -> int:
        if not self.progress.exists():
            return 0
        try:
            content = json.loads(self.progress.read_text())
            done, origin = int(content["done"]), content["origin"]
            with open(self.path, "rb") as file:
                short = self.path.stat().st_size < self._header_bytes(file) + done * self._row_bytes
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self._damaged} cannot be read ({error}); {self._advice}") from error
        differing = [name for name in self.origin.keys() | origin.keys() if origin.get(name) != self.origin.get(name)]
        if differing:
            raise CheckpointError(
                f"{self._damaged} come from others than these ({', '.join(sorted(differing))}); {self._advice}"
            )
        if short:
            raise CheckpointError(f"{self._damaged} are fewer than the {done} that were written; {self._advice}")
        return done

    @property
    def _damaged(self) -> str:
        return f"the task solutions in {self.path.parent}"

    @property
    def _advice(self) -> str:
        return f"delete the folder {self.path.parent} and resume the run: it computes them anew"
