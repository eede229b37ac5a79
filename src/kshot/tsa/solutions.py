"""Estimated optima of many training tasks, streamed to disk: the second stage of TSA-MAML (Z21 section 4.2)."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kshot.data.augmentation import augmentation_for
from kshot.data.episodes import Episodes
from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError
from kshot.evaluation.task_loop import for_tasks
from kshot.files import read_json, refusal, write_json
from kshot.learners import TSAMAML
from kshot.training.distributed import resolve_device
from kshot.training.interrupts import StopSignals, TrainingInterrupted
from kshot.training.options import ResolvedOptions

FloatArray = NDArray[np.float32]

_LARGEST = 1 << 20  # bytes of progress.json


def solve_tasks(
    learner: TSAMAML, data: AnyDataset, *, options: ResolvedOptions, folder: Path, count: int
) -> FloatArray:
    """Estimate the optima of the first `count` training tasks, as far as the files in `folder` lack them.

    Parameters
    ----------
    learner
        Gives each task the weights that gradient descent reaches from theta*.
    data
        The dataset of the training.
    options
        All options of the training, which say what the tasks are.
    folder
        Holds the solutions.
    count
        Number of tasks.

    Returns
    -------
    ndarray
        The vectors (count, D), float32, memory-mapped.

    Raises
    ------
    TrainingInterrupted
        After a signal.
    CheckpointError
        If the files are damaged, or hold other tasks or weights.
    DivergenceError
        If the descent of a task diverges.
    """
    split = data.split(options.train_on)
    file = SolutionFile(folder, tasks=count, size=learner.vector_size, origin=_origin(learner, data, options))
    learner.to(resolve_device(options.device))
    if options.channels_last:
        learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with StopSignals() as signals:

        def solve(episodes: Episodes) -> None:
            file.append(torch.cat(learner.by_chunk(learner.task_vectors, episodes)).cpu().numpy())
            if signals.requested and not file.complete:
                raise TrainingInterrupted(f"stopped after {file.done} of {count} task solutions")

        for_tasks(
            learner,
            solve,
            sampler=learner.sampler(split, options.shape, seed=options.seed, within_domain=options.within_domain),
            numbers=np.arange(count),
            normalization=split.normalization,
            augmentation=augmentation_for(split.normalization, split.image_shape[-1]) if options.augment else None,
            done=file.done,
            precision=options.precision,
            progress="task solutions" if options.progress else None,
        )
    return file.read()


def _origin(learner: TSAMAML, data: AnyDataset, options: ResolvedOptions) -> dict[str, Any]:
    """Everything that the task solutions depend on."""
    digest = hashlib.sha256()
    for weight in learner.network.parameters():
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    names = ("ways", "shots", "queries", "within_domain", "train_on", "augment", "seed", "precision")
    solving = ("assignment_steps", "symmetrize", "shifts", "inner_rate", "layers", "cluster_norms", "cluster_head")
    described = {name: learner.options[name] for name in solving}
    origin = {"dataset": data.name, "pretrained weights": digest.hexdigest()}
    return origin | described | {name: getattr(options, name) for name in names}


class SolutionFile:
    """``solutions.npy`` (tasks, size) float32 in a folder, of which the first `done` rows are written.

    ``progress.json`` in the same folder says how many these are, their checksum and, in `origin`, what they come
    from. It is replaced only after the rows have reached the disk, so that a process that goes on never trusts half a
    row.

    Parameters
    ----------
    folder
        Holds the two files; it is created with the first rows.
    tasks, size
        Number of rows, and numbers per row.
    origin
        Everything that the rows depend on, as JSON can hold it.

    Raises
    ------
    CheckpointError
        If the folder holds rows of another origin, or fewer than it says.
    """

    def __init__(self, folder: Path, *, tasks: int, size: int, origin: Mapping[str, Any]) -> None:
        self.path, self.progress = folder / "solutions.npy", folder / "progress.json"
        self.shape, self._row_bytes = (tasks, size), 4 * size
        self.origin = json.loads(json.dumps(dict(origin) | {"tasks": tasks, "size": size}))  # as it is read back
        self._checksum = 0  # of the rows so far
        self.done = self._written()

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return self.done == self.shape[0]

    def append(self, rows: FloatArray) -> None:
        """Write the next rows (R, size); CheckpointError if the disk refuses, which keeps the earlier ones."""
        written = np.ascontiguousarray(rows, np.float32).tobytes()
        try:
            if self.done == 0:
                self._begin()
            with open(self.path, "r+b") as file:
                file.seek(self._header_bytes(file) + self.done * self._row_bytes)
                file.write(written)
                file.flush()
                os.fsync(file.fileno())
            checksum = zlib.crc32(written, self._checksum)
            write_json(self.progress, {"done": self.done + len(rows), "origin": self.origin, "checksum": checksum})
        except OSError as error:
            raise CheckpointError(
                f"{self.path}, of {self.shape[0] * self._row_bytes / 1e9:.1f} GB in all, could not be written, and its "
                f"first {self.done} rows are kept: {refusal(error)}, and resume the run"
            ) from error
        self.done, self._checksum = self.done + len(rows), checksum

    def read(self) -> FloatArray:
        """All rows (tasks, size), memory-mapped; they must be complete."""
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
            content = read_json(self.progress, limit=_LARGEST)
            done, origin, checksum = (content[name] for name in ("done", "origin", "checksum"))
            if not isinstance(origin, dict) or type(done) is not int or not 0 <= done <= self.shape[0]:
                raise ValueError(f"{self.progress.name} is not what training writes")
            differing = [
                name for name in self.origin.keys() | origin.keys() if origin.get(name) != self.origin.get(name)
            ]
            if differing:
                raise CheckpointError(
                    f"{self._damaged} were computed from something else (it differs in "
                    f"{', '.join(sorted(differing))}); {self._advice}"
                )
            self._checksum = self._checksum_of(done)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"{self._damaged} cannot be read ({error}); {self._advice}") from error
        if self._checksum != checksum:
            raise CheckpointError(f"{self._damaged} are not those that were written; {self._advice}")
        return done

    def _checksum_of(self, done: int) -> int:
        """The CRC of the first rows; ValueError if there are fewer, or rows of another form."""
        checksum, left = 0, done * self._row_bytes
        with open(self.path, "rb") as file:
            np.lib.format.read_magic(file)
            if np.lib.format.read_array_header_1_0(file) != (self.shape, False, np.dtype("<f4")):
                raise ValueError(f"{self.path.name} holds rows of another form")
            while left > 0:
                piece = file.read(min(left, 1 << 20))
                if not piece:
                    raise ValueError(f"they are fewer than the {done} that were written")
                checksum, left = zlib.crc32(piece, checksum), left - len(piece)
        return checksum

    @property
    def _damaged(self) -> str:
        return f"the task solutions in {self.path.parent}"

    @property
    def _advice(self) -> str:
        return f"delete the folder {self.path.parent} and resume the run: it computes them again"
