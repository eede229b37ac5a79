"""What is left to run of a study: the cells that are wanted, and a job for each, the longest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kshot.errors import DataError
from kshot.files import write_json
from kshot.studies.budget import Budget
from kshot.studies.cells import Cell
from kshot.studies.engines import Job
from kshot.studies.plan import make_plan, missing_data
from kshot.studies.study_folder import StudyFolder

Say = Callable[[str], None]


def wanted_cells(study: StudyFolder, chosen: Sequence[Cell], *, retry_failed: bool, say: Say) -> list[Cell]:
    """The chosen cells that are not done, whose data is there, and that did not fail for good; says which are left out.

    Parameters
    ----------
    study
        The study.
    chosen
        Its cells, or some of them.
    retry_failed
        Take cells, too, that failed in a way that would repeat itself.
    say
        Gets a line about each dataset that is missing, and about each cell that failed.

    Raises
    ------
    DataError
        If the data of all cells is missing.
    """
    left = [cell for cell in chosen if study.cell_folder(cell).result() is None]
    missing = missing_data(left, study.root)
    for dataset, where in missing.items():
        say(f"skipped  cells on {dataset}, which is not prepared. {where}")
    if left and missing.keys() >= {cell.dataset for cell in left}:
        where = " ".join(f"{dataset}: {text}" for dataset, text in missing.items())
        raise DataError(f"the data of all cells of {study.name} is missing. {where}")
    wanted = []
    for cell in left:
        folder = study.cell_folder(cell)
        if cell.dataset in missing:
            continue
        failure = folder.failure()
        if failure is not None and failure["lasting"] and not retry_failed:
            say(f"failed   {cell.name}, before: {failure['message']} (--retry-failed true tries again)")
            continue
        folder.forget_failure()
        wanted.append(cell)
    return wanted


def planned_jobs(
    study: StudyFolder, wanted: Sequence[Cell], *, budget: Budget, trial_seconds: float, threads: int, say: Say
) -> list[Job]:
    """The jobs of cells, those that take longest first; each is planned by a trial once, and written to its folder.

    Parameters
    ----------
    study
        The study.
    wanted
        The cells to run.
    budget
        What each cell may cost.
    trial_seconds
        How long each trial trains, about.
    threads
        Threads of each cell.
    say
        Gets a line about each cell whose trial fails, and which has no job.
    """
    unplanned = [cell for cell in wanted if not study.cell_folder(cell).planned]
    if unplanned:
        _plan_each(study, unplanned, budget=budget, trial_seconds=trial_seconds, threads=threads, say=say)
    estimates = study.estimates()
    ready = [cell for cell in wanted if study.cell_folder(cell).planned]
    ready.sort(key=lambda cell: -(estimates.get(cell.name, {}).get("seconds") or 0.0))
    return [Job(study.cell_folder(cell), cell.dataset, estimates.get(cell.name, {}).get("disk", 0.0)) for cell in ready]


def _plan_each(
    study: StudyFolder, cells: Sequence[Cell], *, budget: Budget, trial_seconds: float, threads: int, say: Say
) -> None:
    """Write each cell to its folder, and to estimates.json what a trial says of its costs; or how its trial failed."""
    plan = make_plan(
        study.name, cells, folder=study.folder / "trials", root=study.root,
        budget=budget, trial_seconds=trial_seconds, threads=threads, say=say,
    )  # fmt: skip
    estimates = dict(study.estimates())
    for planned in plan.cells:
        folder = study.cell_folder(planned.cell)
        if planned.costs is None:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.fail(planned.problem, lasting=False, place="its trial")  # another trial costs little
            say(f"failed   {planned.cell.name}: {planned.problem}")
            continue
        folder.write(planned.cell)
        estimates[planned.cell.name] = {
            "seconds": planned.seconds,
            "recipe_images": planned.recipe_images,
            "memory": planned.costs.memory,
            "disk": planned.costs.disk,
        }
    write_json(study.folder / "estimates.json", estimates)
