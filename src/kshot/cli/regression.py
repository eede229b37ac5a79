"""`kshot regression`: errors after each number of gradient steps, and the classical picture of one task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.options import DEVICE_TEXT, Options
from kshot.data.regression import RegressionDataset
from kshot.errors import ConfigError
from kshot.experiments import regression, regression_output
from kshot.files import write_text
from kshot.report import pictures
from kshot.runs.run import Run
from kshot.training.distributed import resolve_device


def run(arguments: Sequence[str]) -> None:
    """Measure runs on tasks of regression before and after gradient steps: mean squared error with its 95%
    interval, and a picture of one task: the true function, the support points, the predictions.

    Examples
    --------
    kshot train --recipe maml-sinusoids
    kshot regression runs/maml-sinusoids-seed0
    kshot regression runs/a runs/b --shots 5 10 --steps 0 1 5 10 --out somewhere
    """
    options = Options.of("kshot regression", run, positional="RUN [RUN ...]")
    options.add("runs", list[Path], text="run folders, trained on the same family of functions")
    options.add_signature(regression.step_errors, "tasks", skip={"learners", "data", "progress"})
    options.add("--task", int, default=0, text="the number of the task in the picture")
    options.add(
        "--out", Path, default=Path("regression"), text="folder for errors.csv, predictions-*.csv and predictions.png"
    )
    options.add("--device", str, default="auto", text=DEVICE_TEXT)
    given = options.parse(arguments)
    alike = len({folder.name for folder in given.runs}) < len(given.runs)
    loaded = {str(folder) if alike else folder.name: Run(folder) for folder in given.runs}
    if len({run.data.name for run in loaded.values()}) > 1:
        raise ConfigError("the runs were trained on different data; name runs of one family of functions")
    learners = {name: run.learner.to(resolve_device(given.device)) for name, run in loaded.items()}
    data = next(iter(loaded.values())).data
    shared = {"steps": given.steps, "split": given.split, "seed": given.seed}
    errors = regression.step_errors(
        learners, data, shots=given.shots, queries=given.queries, tasks=given.tasks, progress=True, **shared
    )
    write_text(given.out / "errors.csv", regression_output.errors_csv(errors))
    print(f"\n{regression_output.error_lines(errors)}\nwrote {given.out / 'errors.csv'}")
    if isinstance(data, RegressionDataset) and data.family.bounds is not None:
        fits = [regression.task_fits(learners, data, shots=count, task=given.task, **shared) for count in given.shots]
        for count, of_learners in zip(given.shots, fits):
            write_text(given.out / f"predictions-{count}shot.csv", regression_output.fits_csv(of_learners))
        title = f"{data.name}/{given.split}, task {given.task} of seed {given.seed}"
        print(f"wrote {pictures.save(regression_output.picture(fits, title), given.out / 'predictions.png')}")
