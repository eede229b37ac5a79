"""Does ANIL approach multi-task learning as networks deepen? (W21, Theorem 1 and Figure 1a)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from kshot.errors import check_positive
from kshot.experiments import plots
from kshot.experiments.findings import Experiment, Findings, Record, check_fit, experiments, over_seeds
from kshot.intervals import fit_power_law, mean_interval, with_interval
from kshot.theory.empirical import empirical_kernels
from kshot.theory.infinite_width import Network, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import Kernel, predict_anil, predict_mtl
from kshot.theory.tasks import squared_distance_tasks


def mean_distance(first: Tensor, second: Tensor) -> float:
    """Norm of the difference over a task's query points, averaged over tasks; predictions are (B, q)."""
    return float(torch.linalg.vector_norm(first - second, dim=-1).mean())


def kernel_of(depth: int, *, network: Network = "relu", width: int | None, seed: int, size: int) -> Kernel:
    """The kernels of infinite width, or those of a random network of `width` for points of `size` numbers."""
    if width is None:
        return functools.partial(kernels, depth=depth, network=network)
    return functools.partial(empirical_kernels, ReLUNetwork(size, width=width, depth=depth, network=network, seed=seed))


def kernel_text(width: int | None) -> str:
    """Which kernels an experiment used, for its verdict."""
    return "closed-form kernels" if width is None else f"empirical kernels of width {width}"


@experiments.register("closeness-depth")
@dataclass(kw_only=True, eq=False)
class ClosenessDepth(Experiment):
    """MTL and ANIL approach each other with depth (W21, Figure 1a).

    Theorem 1 bounds |F_ANIL - F_MTL| by O(lambda tau + 1/L) plus what a finite width adds. Here both predictors are
    computed on the paper's synthetic tasks, at lambda tau = 0, from the closed-form kernels of infinite width, or, as
    in the paper's figure, from the kernels of random networks of width 512 (`kernel_width`). The distance is the norm
    over the query points of a test task, averaged over test tasks; its root mean square per query point stands next to
    it, since the ticks of Figure 1 fit the latter.

    Parameters
    ----------
    depths
        Numbers L of weight layers.
    network
        Family of the networks: plain, or residual with LayerNorm before each branch, after each block, or without.
    kernel_width
        Units in each hidden layer of the random network whose kernels are taken, 512 in the paper's figure; its seed is
        that of the tasks. None for the closed form.
    time
        Learning rate times steps of the test task's head, lambda t; 0 leaves the head as training left it.
    tasks
        Training tasks.
    points
        Points per training task.
    test_tasks
        Test tasks that the distance is averaged over, with 5 support and 10 query points each.
    seeds
        Seeds of the tasks; one repetition each.
    """

    depths: Sequence[int] = (3, 5, 10, 20, 30, 50, 70, 90, 110)
    network: Network = "relu"
    kernel_width: int | None = None
    time: float = 0.0
    tasks: int = 20
    points: int = 10
    test_tasks: int = 20
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        if self.kernel_width is not None:
            check_positive(kernel_width=self.kernel_width)
        check_positive(depths=self.depths, tasks=self.tasks, points=self.points, test_tasks=self.test_tasks)
        check_fit(self.seeds, depths=self.depths)
        self.depths = sorted(self.depths)

    def run(self, *, progress: bool = False) -> Findings:
        """The distance for every depth, its fitted exponent, and the picture."""
        pairs = [(seed, depth) for seed in self.seeds for depth in self.depths]
        distances = [self._distances(*pair) for pair in tqdm(pairs, disable=not progress)]
        curves = np.asarray(distances).reshape(len(self.seeds), len(self.depths), 2)
        rows = []
        for place, depth in enumerate(self.depths):
            row: Record = {"network": self.network, "depth": depth}
            for name, values in zip(("distance", "rms_per_point"), curves[:, place].T):
                row[name], row[f"{name}_ci95"] = mean_interval(values)
            rows.append(row | {"seeds": len(self.seeds)})
        return Findings(rows, self._verdict(rows, curves[..., 0]), lambda figure: self._draw(figure, rows))

    def _distances(self, seed: int, depth: int) -> tuple[float, float]:
        """The mean norm over a task's query points, and the root mean square per point."""
        tasks = squared_distance_tasks(seed, tasks=self.tasks, points=self.points, test_tasks=self.test_tasks)
        kernel = kernel_of(depth, network=self.network, width=self.kernel_width, seed=seed, size=tasks.query.shape[-1])
        anil = predict_anil(kernel, tasks, time=self.time).values
        mtl = predict_mtl(kernel, tasks, time=self.time).values
        return mean_distance(anil, mtl), float((anil - mtl).square().mean().sqrt())

    def _verdict(self, rows: Sequence[Record], curves: NDArray[np.float64]) -> str:
        law = fit_power_law(self.depths, curves)
        tail = fit_power_law(self.depths[-3:], curves[:, -3:])
        fold = with_interval(*mean_interval(curves[:, 0] / curves[:, -1]), ".1f")
        ends = " to ".join(
            f"{_with_interval(row, 'distance')} ({_with_interval(row, 'rms_per_point')})" for row in (rows[0], rows[-1])
        )
        return (
            f"{self.network}: |F_ANIL - F_MTL| over 10 query points (root mean square per point) goes from {ends} "
            f"between L = {self.depths[0]} and {self.depths[-1]}, which is {fold} times less, {law} "
            f"(last three depths {tail.exponent_text}); Theorem 1 promises -1 or steeper; "
            f"{self._protocol()}, {over_seeds(self.seeds, fitted=True)}"
        )

    def _protocol(self) -> str:
        return (
            f"{self.tasks} training tasks of {self.points} points, {self.test_tasks} test "
            f"tasks, lambda t = {self.time:g}, {kernel_text(self.kernel_width)}"
        )

    def _draw(self, figure: Figure, rows: Sequence[Record]) -> None:
        axes = figure.subplots()
        plots.logarithmic(axes)
        names = {"distance": "norm over 10 query points", "rms_per_point": "root mean square per query point"}
        for style, (name, label) in enumerate(names.items()):
            mean, ci95 = ([float(row[column]) for row in rows] for column in (name, f"{name}_ci95"))
            plots.curve(axes, self.depths, mean, ci95=ci95, label=f"{label}, 95% interval", style=style)
        plots.slope(axes, self.depths, exponent=-1, through=(self.depths[0], float(rows[0]["distance"])))
        plots.finish(axes, "MTL and ANIL approach each other with depth", xlabel="depth L", ylabel="|F_ANIL - F_MTL|")


def _with_interval(row: Record, column: str) -> str:
    return with_interval(float(row[column]), float(row[f"{column}_ci95"]), ".3g", margin_digits=".2g")
