"""Cells as SLURM jobs, by submitit; all machines share the disk of the study. A job that ends early is queued again."""

from __future__ import annotations

import os
from pathlib import Path

import submitit

from kshot.errors import ConfigError
from kshot.studies.engines.base import Ended, Engine, EngineOptions, Job
from kshot.studies.engines.process import run_process


class CellJob:
    """What a job does; submitit calls `checkpoint` before the time limit, or if the job has to make room."""

    def __init__(self, folder: Path, root: Path | str | None, version: str, threads: int) -> None:
        self.folder = folder
        self.root = root
        self.version = version
        self.threads = threads

    def __call__(self) -> tuple[int, str, str]:
        """Run the cell; returns its exit code, what it printed last, and where that was."""
        place = os.uname().nodename
        code, words = run_process(self.folder, root=self.root, version=self.version, threads=self.threads, place=place)
        return code, words, place

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """The same again: the cell goes on from its checkpoint."""
        return submitit.helpers.DelayedSubmission(self)


class Slurm(Engine):
    """One job per cell; without a number of workers the queue decides how many run at once."""

    def __init__(self, options: EngineOptions, *, root: Path | str | None, version: str) -> None:
        super().__init__(options, root=root, version=version)
        self._running: dict[str, submitit.Job] = {}
        self._executor: submitit.AutoExecutor | None = None

    def _executor_in(self, folder: Path) -> submitit.AutoExecutor:
        """What submits jobs, whose logs go into the folder of the study."""
        if self._executor is None:
            cluster = "local" if self.options.slurm_local else "slurm"
            try:
                executor = submitit.AutoExecutor(folder=folder / "slurm" / "%j", cluster=cluster)
            except RuntimeError as error:
                raise ConfigError(
                    f"SLURM is not to be had here ({error}); run this where sbatch is, or try it with --slurm-local"
                ) from error
            executor.update_parameters(
                name="kshot",
                timeout_min=max(1, round(60 * self.options.hours)),
                cpus_per_task=self.options.threads,
                gpus_per_node=self.options.gpus,
                **({"slurm_partition": self.options.partition} if self.options.partition else {}),
            )
            self._executor = executor
        return self._executor

    def start(self, job: Job) -> bool:
        """Submit a cell."""
        if self.options.workers and len(self._running) >= self.options.workers:
            return False
        executor = self._executor_in(job.folder.path.parents[1].absolute())
        cell = CellJob(job.folder.path.absolute(), self.root, self.version, self.options.threads)
        self._running[job.folder.name] = executor.submit(cell)
        return True

    def ended(self) -> list[Ended]:
        """The jobs that have ended."""
        over = []
        for name, job in list(self._running.items()):
            if not job.done():
                continue
            del self._running[name]
            try:
                code, words, place = job.result()
                over.append(Ended(name, code, place, words))
            except Exception as error:  # whatever a job may die of
                words = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
                over.append(Ended(name, None, f"job {job.job_id} ({words})"))
        return over

    def stop(self) -> None:
        """Cancel the jobs; cells save themselves, and go on when the study is run again."""
        for job in self._running.values():
            job.cancel(check=False)
        self._running = {}
