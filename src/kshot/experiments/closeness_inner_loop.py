"""Does the length of ANIL's inner loop drive it away from multi-task learning? (W21, Theorem 1 and Figure 1b)."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from kshot.errors import ConfigError, check_positive
from kshot.experiments import plots
from kshot.experiments.closeness_depth import kernel_of, kernel_text, mean_distance
from kshot.experiments.findings import Findings, Record, experiments, over_seeds
from kshot.experiments.finite_training import Trained, stable_rate, train_anil, train_mtl
from kshot.experiments.finite_width import INNER_STEPS
from kshot.experiments.trained_networks import TrainedNetworks
from kshot.intervals import mean_interval, with_interval
from kshot.theory.infinite_width import kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import Kernel, predict_anil, predict_mtl
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks

FORMULA, WITHOUT_G = "formula", "formula without G_tau"
STOPPED, NETWORKS, ADAPTED = "formula, trained as long", "networks", "networks, head adapted"
Measured = Mapping[str, float]


@experiments.register("closeness-inner-loop")
@dataclass(kw_only=True, eq=False)
class ClosenessInnerLoop(TrainedNetworks):
    """MTL and ANIL against the length of the inner loop, lambda tau (W21, Figure 1b).

    Three answers: by the formulas of Lemma 1, in which lambda tau cancels; by the formula without the G_tau that it
    subtracts from the targets; and by networks of finite width, trained with real inner loops, with the formula for a
    training that ends as early as theirs next to them. Distances are norms over the query points of a test task,
    averaged over test tasks, relative to the norm of F_MTL.

    Parameters
    ----------
    paper_times
        Values of lambda tau for the formulas, in the paper's setting (20 tasks of 10 points).
    paper_depth
        Weight layers L in the paper's setting.
    kernel_width
        Units in each hidden layer of the random network whose kernels the formulas take in the paper's setting, 512 in
        its figure; None for the closed form.
    inner_times
        Values of lambda tau for the networks, which take 5 inner steps.
    width
        Units in each hidden layer of the networks.
    depth
        Weight layers of the networks.
    tasks
        Training tasks of the networks; there are 10 test tasks of 5 support and 10 query points.
    points
        Points per training task of the networks.
    target_scale
        Factor on the networks' targets: the larger they are, the further the weights move.
    adaptation_time
        Learning rate times steps of the test task's head, for the curve with adapted heads.
    tolerance
        Training ends when the residuals after the inner loop are below this share of the targets.
    max_steps
        Training ends after so many steps at the latest.
    seeds
        Seeds of tasks and initial weights; one repetition each.
    """

    paper_times: Sequence[float] = (0, 0.001, 0.002, 0.003, 0.004, 0.005)
    paper_depth: int = 10
    kernel_width: int | None = None
    inner_times: Sequence[float] = (0, 0.0025, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5)
    width: int = 512
    depth: int = 4
    tasks: int = 8
    points: int = 5
    target_scale: float = 0.1
    adaptation_time: float = 0.5
    tolerance: float = 1e-3
    max_steps: int = 2000
    seeds: Sequence[int] = (0, 1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(paper_depth=self.paper_depth, width=self.width)
        if self.kernel_width is not None:
            check_positive(kernel_width=self.kernel_width)
        if (
            not self.paper_times
            or not self.inner_times
            or not self.seeds
            or min(*self.paper_times, *self.inner_times) < 0
        ):
            raise ConfigError("paper_times, inner_times and seeds need at least one value each, and no time is below 0")
        self.paper_times, self.inner_times = sorted(self.paper_times), sorted(self.inner_times)

    def run(self, *, progress: bool = False) -> Findings:
        """The distance for every curve and time, and the picture."""
        measured_at: dict[tuple[str, str, float], list[Measured]] = defaultdict(list)
        with tqdm(total=len(self.seeds) * (1 + len(self.inner_times)), disable=not progress) as bar:
            for seed in self.seeds:
                for curve, time, distance in self._by_formula(seed):
                    measured_at["paper", curve, time].append({"distance": distance})
                bar.update()
                for curve, time, measured in self._by_training(seed):
                    measured_at["networks", curve, time].append(measured)
                    bar.update(curve == NETWORKS)
        first = {"paper": self.paper_times[0], "networks": self.inner_times[0]}
        rows = [
            _row(*place, values, measured_at[place[0], place[1], first[place[0]]])
            for place, values in measured_at.items()
        ]
        verdict = f"{_verdict(rows)}; {self._protocol()}, paired, {over_seeds(self.seeds)}"
        return Findings(rows, verdict, lambda figure: _draw(figure, rows), size=(10.5, 4.2))

    def _protocol(self) -> str:
        return (
            f"formula at L = {self.paper_depth} on 20 tasks of 10 points, {kernel_text(self.kernel_width)}; "
            f"networks of width {self.width}, L = {self.depth}, {self.tasks} tasks of {self.points} points, "
            f"targets times {self.target_scale:g}, {INNER_STEPS} inner steps"
        )

    def _by_formula(self, seed: int) -> Iterator[tuple[str, float, float]]:
        """The formula with and without G_tau, in the paper's setting: (curve, time, distance)."""
        tasks = squared_distance_tasks(seed)
        kernel = kernel_of(self.paper_depth, width=self.kernel_width, seed=seed, size=tasks.query.shape[-1])
        mtl = predict_mtl(kernel, tasks).values
        for time in self.paper_times:
            anil = predict_anil(kernel, tasks, inner_time=time).values
            yield FORMULA, time, _relative(anil, mtl)
            # Phi^-1 Y in the place of Phi^-1 (Y - G_tau) = Phi^-1 exp(-tau K) Y
            grown = predict_anil(kernel, _grown(kernel, tasks, time), inner_time=time).values
            yield WITHOUT_G, time, _relative(grown, mtl)

    def _by_training(self, seed: int) -> Iterator[tuple[str, float, Measured]]:
        """Trained networks, and the formula trained as long: (curve, time, what was measured)."""
        tasks = self.drawn(seed)
        size = tasks.query.shape[-1]
        network = ReLUNetwork(size, width=self.width, depth=self.depth, seed=seed, dtype=torch.float32)
        kernel = functools.partial(kernels, depth=self.depth)
        rate = stable_rate(network, tasks)
        mtl = train_mtl(network, tasks, rate=rate, tolerance=self.tolerance, max_steps=self.max_steps)
        formula = predict_mtl(kernel, tasks).values
        for time in self.inner_times:
            anil = train_anil(
                network,
                tasks,
                rate=rate,
                inner_time=time,
                inner_steps=INNER_STEPS,
                tolerance=self.tolerance,
                max_steps=self.max_steps,
            )
            reached = {"steps": anil.steps, "residual": anil.residual}
            yield NETWORKS, time, reached | {"distance": _between(anil, mtl, tasks, 0)}
            yield ADAPTED, time, reached | {"distance": _between(anil, mtl, tasks, self.adaptation_time)}
            stopped = predict_anil(
                kernel, tasks, inner_time=time, training_time=rate * anil.steps, inner_steps=INNER_STEPS
            ).values
            yield STOPPED, time, reached | {"distance": _relative(stopped, formula)}


def _between(anil: Trained, mtl: Trained, tasks: RegressionTasks, time: float) -> float:
    """Relative distance of two trained networks, their heads adapted for `time`."""
    return _relative(anil.predict(tasks, time=time), mtl.predict(tasks, time=time))


def _relative(anil: Tensor, mtl: Tensor) -> float:
    """|F_ANIL - F_MTL| / |F_MTL|."""
    return mean_distance(anil, mtl) / mean_distance(mtl, torch.zeros_like(mtl))


def _grown(kernel: Kernel, tasks: RegressionTasks, time: float) -> RegressionTasks:
    """The tasks with targets ``exp(time K_i) Y_i``."""
    inputs, targets = torch.stack(list(tasks.inputs)), torch.stack(list(tasks.targets))
    growth = torch.linalg.matrix_exp(time * kernel(inputs, inputs).nngp)
    return replace(tasks, targets=(growth @ targets[..., None])[..., 0])


def _row(setting: str, curve: str, time: float, here: Sequence[Measured], first: Sequence[Measured]) -> Record:
    """A line of the table; `first` holds the same repetitions with the shortest inner loop."""
    mean, ci95 = mean_interval([measured["distance"] for measured in here])
    row: Record = {"setting": setting, "curve": curve, "inner_time": time, "distance": mean, "distance_ci95": ci95}
    changes = [measured["distance"] - before["distance"] for measured, before in zip(here, first)]
    row["change"], row["change_ci95"] = mean_interval(changes)
    for name in ("steps", "residual"):
        measures = [measured[name] for measured in here if name in measured]
        row[name], row[f"{name}_ci95"] = mean_interval(measures) if measures else ("", "")
    return row | {"seeds": len(here)}


def _verdict(rows: Sequence[Record]) -> str:
    paper = max(float(row["inner_time"]) for row in rows if row["setting"] == "paper")
    longest = max(float(row["inner_time"]) for row in rows)

    def change(curve: str, last: float) -> str:
        of_curve = [row for row in rows if row["curve"] == curve]
        row = ([row for row in of_curve if float(row["inner_time"]) <= last] or of_curve[:1])[-1]
        # rounded first, and 0 added, so that no change is not printed as -0.000
        return with_interval(round(float(row["change"]), 3) + 0, float(row["change_ci95"]), "+.3f")

    start = {
        row["setting"]: with_interval(float(row["distance"]), float(row["distance_ci95"]), ".3f")
        for row in reversed(rows)
        if row["curve"] in (FORMULA, NETWORKS)
    }
    return (
        f"change of |F_ANIL - F_MTL| / |F_MTL| with lambda tau up to {paper:g}: formula {change(FORMULA, paper)} (from "
        f"{start['paper']}), without G_tau {change(WITHOUT_G, paper)}, networks {change(NETWORKS, paper)} (from "
        f"{start['networks']}); up to {longest:g}: networks {change(NETWORKS, longest)}, with adapted heads "
        f"{change(ADAPTED, longest)}, formula trained as long {change(STOPPED, longest)}"
    )


def _draw(figure: Figure, rows: Sequence[Record]) -> None:
    titles = {"paper": "The paper's setting, by formula", "networks": "Trained networks, and far beyond"}
    for axes, (setting, title) in zip(figure.subplots(1, 2), titles.items()):
        here = [row for row in rows if row["setting"] == setting]
        for style, name in enumerate(dict.fromkeys(row["curve"] for row in here)):
            of_curve = [row for row in here if row["curve"] == name]
            times, mean, ci95 = (
                [float(row[key]) for row in of_curve] for key in ("inner_time", "distance", "distance_ci95")
            )
            plots.curve(axes, times, mean, ci95=ci95, label=str(name), style=style)
        if setting == "networks":
            axes.set_xscale("symlog", linthresh=0.0025)
        axes.set_ylim(bottom=0)
        plots.finish(axes, title, xlabel="lambda tau", ylabel="|F_ANIL - F_MTL| / |F_MTL|")
