"""Does the length of ANIL's inner loop drive it away from multi-task learning? (W21, Theorem 1 and Figure 1b)."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from kshot.errors import ConfigError, check_positive
from kshot.experiments import plots
from kshot.experiments.closeness_depth import mean_distance
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.experiments.finite_width import INNER_STEPS, Given, scaled
from kshot.intervals import mean_interval
from kshot.theory.finite_training import Trained, stable_rate, train_anil, train_mtl
from kshot.theory.kernels import kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import Kernel, predict_anil, predict_mtl
from kshot.theory.tasks import squared_distance_tasks

FORMULA, WITHOUT_G = "formula", "formula without G_tau"
STOPPED, NETWORKS, ADAPTED = "formula, trained as long", "networks", "networks, head adapted"
Row = dict[str, float | int | str]
Measured = Mapping[str, float]


@experiments.register("closeness-inner-loop")
class ClosenessInnerLoop(Experiment):
    """W21, Figure 1b: the distance between MTL and ANIL against the length of the inner loop, lambda tau.

    Three answers: by the formulas of Lemma 1, in which lambda tau cancels; by the formula without the G_tau that it
    subtracts from the targets; and by networks of finite width, trained with real inner loops, beside which the formula
    is also computed for a training that ends as early as theirs. Distances are relative to the norm of F_MTL.

    paper_times: values of lambda tau for the formulas, in the paper's setting (20 tasks of 10 points).
    paper_depth: weight layers L in the paper's setting.
    inner_times: values of lambda tau for the networks, which have 5 inner steps.
    width: units in each hidden layer of the networks.
    depth: weight layers of the networks.
    tasks: training tasks of the networks; there are 10 test tasks of 5 support and 10 query points.
    points: points of each of these training tasks.
    target_scale: factor on the networks' targets: the larger they are, the further the weights move.
    adaptation_time: learning rate times steps of the test task's head, for the curve with adapted heads.
    tolerance: training ends when the residuals behind the inner loop are below this part of the targets.
    max_steps: training ends after so many steps at the latest.
    seeds: of tasks and initial weights; one repetition each.
    """

    def __init__(
        self,
        paper_times: Sequence[float] = (0, 0.001, 0.002, 0.003, 0.004, 0.005),
        paper_depth: int = 10,
        inner_times: Sequence[float] = (0, 0.0025, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5),
        width: int = 512,
        depth: int = 4,
        tasks: int = 8,
        points: int = 5,
        target_scale: float = 0.1,
        adaptation_time: float = 0.5,
        tolerance: float = 1e-3,
        max_steps: int = 2000,
        seeds: Sequence[int] = (0, 1, 2),
    ) -> None:
        check_positive(paper_depth=paper_depth, width=width, depth=depth, tasks=tasks, points=points)
        check_positive(target_scale=target_scale, tolerance=tolerance, max_steps=max_steps)
        if not paper_times or not inner_times or not seeds or min(*paper_times, *inner_times) < 0:
            raise ConfigError("paper-times, inner-times and seeds need one value at least, and no time is below 0")
        self.paper_times = sorted(paper_times)
        self.paper_depth = paper_depth
        self.inner_times = sorted(inner_times)
        self.width, self.depth = width, depth
        self.shape = {"tasks": tasks, "points": points, "test_tasks": 10}
        self.target_scale = target_scale
        self.adaptation_time = adaptation_time
        self.tolerance, self.max_steps = tolerance, max_steps
        self.seeds = seeds

    def run(self, progress: bool = False) -> Findings:
        """The distance for every curve and time, and the picture."""
        found: dict[tuple[str, str, float], list[Measured]] = defaultdict(list)
        with tqdm(total=len(self.seeds) * (1 + len(self.inner_times)), disable=not progress) as bar:
            for seed in self.seeds:
                for curve, time, distance in self._by_formula(seed):
                    found["paper", curve, time].append({"distance": distance})
                bar.update()
                for curve, time, measured in self._by_training(seed):
                    found["networks", curve, time].append(measured)
                    bar.update(curve == NETWORKS)
        first = {"paper": self.paper_times[0], "networks": self.inner_times[0]}
        rows = [_row(*place, here, found[place[0], place[1], first[place[0]]]) for place, here in found.items()]
        return Findings(rows, _verdict(rows, len(self.seeds)), lambda figure: _draw(figure, rows), size=(10.5, 4.2))

    def _by_formula(self, seed: int) -> Iterator[tuple[str, float, float]]:
        given = scaled(squared_distance_tasks(seed), 1)
        kernel = functools.partial(kernels, depth=self.paper_depth)
        mtl = predict_mtl(kernel, *given).values
        for time in self.paper_times:
            anil = predict_anil(kernel, *given, inner_time=time).values
            yield FORMULA, time, _relative(anil, mtl)
            # Phi^-1 Y in the place of Phi^-1 (Y - G_tau) = Phi^-1 exp(-tau K) Y
            grown = given._replace(targets=_grown(kernel, given.inputs, given.targets, time))
            yield WITHOUT_G, time, _relative(predict_anil(kernel, *grown, inner_time=time).values, mtl)

    def _by_training(self, seed: int) -> Iterator[tuple[str, float, Measured]]:
        given = scaled(squared_distance_tasks(seed, **self.shape), self.target_scale)
        network = ReLUNetwork(given.inputs.shape[-1], self.width, self.depth, seed=seed, dtype=torch.float32)
        kernel = functools.partial(kernels, depth=self.depth)
        rate = stable_rate(network, given.inputs)
        stop = (self.tolerance, self.max_steps)
        mtl = train_mtl(network, given.inputs, given.targets, rate, *stop)
        formula = predict_mtl(kernel, *given).values
        for time in self.inner_times:
            anil = train_anil(network, given.inputs, given.targets, rate, time, INNER_STEPS, *stop)
            reached = {"steps": anil.steps, "residual": anil.residual}
            yield NETWORKS, time, reached | {"distance": self._between(anil, mtl, given, 0)}
            yield ADAPTED, time, reached | {"distance": self._between(anil, mtl, given, self.adaptation_time)}
            stopped = predict_anil(kernel, *given, 0, time, rate * anil.steps, INNER_STEPS).values
            yield STOPPED, time, reached | {"distance": _relative(stopped, formula)}

    def _between(self, anil: Trained, mtl: Trained, given: Given, time: float) -> float:
        test = (given.query, given.support, given.support_targets, time)
        return _relative(anil.predict(*test), mtl.predict(*test))


def _relative(anil: Tensor, mtl: Tensor) -> float:
    return mean_distance(anil, mtl) / mean_distance(mtl, torch.zeros_like(mtl))


def _grown(kernel: Kernel, inputs: Tensor, targets: Tensor, time: float) -> Tensor:
    """``exp(time K_i) Y_i`` of each task, (N, n)."""
    return (torch.linalg.matrix_exp(time * kernel(inputs, inputs).nngp) @ targets[..., None])[..., 0]


def _row(setting: str, curve: str, time: float, here: Sequence[Measured], first: Sequence[Measured]) -> Row:
    """A line of the table; `first` holds the same repetitions with the shortest inner loop."""
    mean, ci95 = mean_interval([measured["distance"] for measured in here])
    row: Row = {"setting": setting, "curve": curve, "inner_time": time, "distance": mean, "distance_ci95": ci95}
    changes = [measured["distance"] - before["distance"] for measured, before in zip(here, first)]
    row["change"], row["change_ci95"] = mean_interval(changes)
    for name in ("steps", "residual"):
        row[name] = mean_interval([measured[name] for measured in here])[0] if name in here[0] else ""
    return row | {"seeds": len(here)}


def _verdict(rows: Sequence[Row], seeds: int) -> str:
    paper = max(float(row["inner_time"]) for row in rows if row["setting"] == "paper")
    longest = max(float(row["inner_time"]) for row in rows)

    def change(curve: str, last: float) -> str:
        own = [row for row in rows if row["curve"] == curve]
        row = ([row for row in own if float(row["inner_time"]) <= last] or own[:1])[-1]
        # rounded first, and 0 added, so that no change is not printed as -0.000
        return f"{round(float(row['change']), 3) + 0:+.3f} ± {row['change_ci95']:.3f}"

    start = {row["setting"]: row["distance"] for row in reversed(rows) if row["curve"] in (FORMULA, NETWORKS)}
    return (
        f"change of |F_ANIL - F_MTL| / |F_MTL| with lambda tau up to {paper:g}: formula {change(FORMULA, paper)} (from "
        f"{start['paper']:.3f}), without G_tau {change(WITHOUT_G, paper)}, networks {change(NETWORKS, paper)} (from "
        f"{start['networks']:.3f}); up to {longest:g}: networks {change(NETWORKS, longest)}, with adapted heads "
        f"{change(ADAPTED, longest)}, formula trained as long {change(STOPPED, longest)}; "
        f"95% intervals, paired over {seeds} seeds"
    )


def _draw(figure: Figure, rows: Sequence[Row]) -> None:
    titles = {"paper": "The paper's setting, by formula", "networks": "Trained networks, and far beyond"}
    for axes, (setting, title) in zip(figure.subplots(1, 2), titles.items()):
        here = [row for row in rows if row["setting"] == setting]
        for style, name in enumerate(dict.fromkeys(row["curve"] for row in here)):
            own = [row for row in here if row["curve"] == name]
            times, mean, ci95 = (
                [float(row[key]) for row in own] for key in ("inner_time", "distance", "distance_ci95")
            )
            plots.curve(axes, times, mean, ci95, str(name), style)
        if setting == "networks":
            axes.set_xscale("symlog", linthresh=0.0025)
        axes.set_ylim(bottom=0)
        plots.finish(axes, title, "lambda tau", "|F_ANIL - F_MTL| / |F_MTL|", logarithmic=False)
