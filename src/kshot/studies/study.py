"""A study: a grid of cells, a folder of runs, one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from kshot.errors import check_not_negative, check_positive
from kshot.studies import study_file
from kshot.studies.budget import Budget
from kshot.studies.cell import version
from kshot.studies.cell_folder import Progress
from kshot.studies.cells import cells_of
from kshot.studies.engines import EngineOptions, create_engine
from kshot.studies.jobs import planned_jobs, wanted_cells
from kshot.studies.pages import write_pages
from kshot.studies.plan import Plan, duration, make_plan
from kshot.studies.scheduler import Outcome, run_jobs
from kshot.studies.simulation import Simulation, simulate
from kshot.studies.study_folder import StudyFolder


@dataclass(frozen=True, repr=False)
class Status:
    """How far each cell of a study is.

    Attributes
    ----------
    name
        Of the study.
    cells
        By name, in the order of the study.
    """

    name: str
    cells: dict[str, Progress]

    def count(self, state: str) -> int:
        """How many cells are in a `state`, such as "done"."""
        return sum(progress.state == state for progress in self.cells.values())

    @property
    def complete(self) -> bool:
        """Whether every cell is done."""
        return self.count("done") == len(self.cells)

    @property
    def summary(self) -> str:
        """One line: how many cells are done, running, failed."""
        counted = [(self.count(state), state) for state in ("done", "running", "failed", "begun", "waiting")]
        cells = "1 cell" if len(self.cells) == 1 else f"{len(self.cells)} cells"
        return f"{cells}: " + ", ".join(f"{count} {state}" for count, state in counted if count)

    def __str__(self) -> str:
        rows = []
        for name, progress in self.cells.items():
            left = progress.seconds_left
            time_left = f"{duration(left)} left" if progress.state == "running" and left is not None else ""
            share = f"{100 * progress.share:.0f} %" if progress.share else ""
            rows.append([name, progress.state, share, time_left or progress.message[:90]])
        return f"{tabulate(rows, ['cell', 'state', 'trained', ''], disable_numparse=True)}\n\n{self.summary}"

    __repr__ = __str__


class Study(StudyFolder):
    """A study by its name or file, and its folder.

    Parameters
    ----------
    study
        The name of a study that kshot ships (`kshot.studies.names`), or a YAML file, see `kshot.studies.study_file`.
    folder
        Where trials, runs and pages go; None for ``studies/NAME``.
    root
        The folder of prepared datasets, see `kshot.load`.
    budget
        What each cell may cost: "full" for what the recipes say, or a time such as "10min-per-cell"; None for what the
        study says.
    seeds
        Training seeds; None for those of the study.
    data
        The datasets whose cells are wanted; None for all.

    Attributes
    ----------
    typed
        The study as commands take it.
    file
        What its file says.
    cells
        All cells.

    Raises
    ------
    ConfigError
        If there is no such study, or its file says something that no study can.
    """

    def __init__(
        self,
        study: str | Path,
        *,
        folder: Path | str | None = None,
        root: Path | str | None = None,
        budget: str | None = None,
        seeds: Sequence[int] | None = None,
        data: Sequence[str] | None = None,
    ) -> None:
        file = study_file.load(study)
        super().__init__(
            str(study),
            file,
            cells_of(file, seeds=seeds, data=data),
            folder=Path("studies") / file.name if folder is None else Path(folder),
            root=Path(root).absolute() if root is not None else None,
            budget=file.budget if budget is None else budget,
            given={"out": folder and [folder], "data": data, "seeds": seeds, "root": root and [root]},
        )
        self.budget = Budget.parse(self.budget_text)

    def __repr__(self) -> str:
        datasets = ", ".join(dict.fromkeys(cell.dataset for cell in self.cells))
        return f"Study({self.file.name!r}): {len(self.cells)} cells on {datasets}, budget {self.budget_text}"

    def plan(
        self,
        *,
        cells: str | None = None,
        trial_seconds: float = 4.0,
        threads: int = 1,
        say: Callable[[str], None] | None = None,
    ) -> Plan:
        """What the study costs, from a short trial of each training on this machine; nothing is run.

        A dataset that is not prepared is replaced by random images of its form in the trial.

        Parameters
        ----------
        cells
            A pattern of names, such as ``maml-*``; None for all.
        trial_seconds
            How long each trial trains, about; 0 for no other trials than those of before.
        threads
            Of each cell.
        say
            Called with a line before each trial; None for silence.
        """
        return make_plan(
            self.name,
            self.matching(cells),
            folder=self.folder / "trials",
            root=self.root,
            budget=self.budget,
            trial_seconds=trial_seconds,
            threads=threads,
            say=say or (lambda line: None),
        )

    def simulate(self, plan: Plan, *, engine: str = "local", options: EngineOptions | None = None) -> Simulation:
        """The schedule of the cells of `plan` on many workers, each as fast as this machine.

        Parameters
        ----------
        plan
            What `plan` returned.
        engine
            "local"; "ray", of which it says what copies of checkpoints amount to; or "slurm", of which it says how many
            jobs reach their time limit.
        options
            `workers`, None for one; `seconds_between_copies` of Ray, and `hours` of SLURM.
        """
        return simulate(plan, engine=engine, options=options)

    def run(
        self,
        *,
        cells: str | None = None,
        engine: str = "local",
        options: EngineOptions | None = None,
        retries: int = 1,
        retry_failed: bool = False,
        trial_seconds: float = 4.0,
        say: Callable[[str], None] = print,
        tick: Callable[[Status], None] | None = None,
    ) -> Outcome:
        """Run what is not done yet; everything that was begun goes on where it stopped.

        Several runners may work at one study: each cell has one worker at a time.

        Parameters
        ----------
        cells
            A pattern of names, such as ``maml-*``; None for all.
        engine
            "local", "ray" or "slurm".
        options
            Where and how the engine runs cells.
        retries
            How often a cell is tried again that was killed, lost its machine or met a full disk.
        retry_failed
            Try cells again that failed in a way that would repeat itself.
        trial_seconds
            How long the trial of each training lasts, which a budget needs to choose its length.
        say
            Called with a line for each cell that ends.
        tick
            Called with the status from time to time.

        Returns
        -------
        Outcome
            Which cells are done, and which failed.

        Raises
        ------
        ConfigError, DataError
            Before any work, if the folder holds another study, the engine is not installed, or all data is missing.
        KeyboardInterrupt
            After Ctrl-C, once all cells have saved themselves.
        """
        options = options or EngineOptions()
        check_positive(trial_seconds=trial_seconds)
        check_not_negative(retries=retries)
        chosen = self.matching(cells)
        # before the trials, which take a while
        with create_engine(engine, options, root=self.root, version=version()) as made:
            self.take_into_use()
            wanted = wanted_cells(self, chosen, retry_failed=retry_failed, say=say)
            jobs = planned_jobs(
                self, wanted, budget=self.budget, trial_seconds=trial_seconds, threads=options.threads, say=say
            )
            return run_jobs(jobs, made, retries=retries, say=say, tick=self._ticker(tick))

    def status(self) -> Status:
        """How far each cell is."""
        return Status(self.name, {cell.name: self.cell_folder(cell).progress() for cell in self.cells})

    def report(self) -> Path:
        """Write report.html, table.md, table.csv, table.tex and paired.csv into the folder; returns the page's path.

        Raises DataError if no cell is done. The page of an unfinished study says that it is unfinished.
        """
        return write_pages(self, self.status().summary)

    def _ticker(self, tick: Callable[[Status], None] | None) -> Callable[[], None]:
        return (lambda: None) if tick is None else (lambda: tick(self.status()))
