"""How close are the matrices that MTL and ANIL invert? (W21, the lemma for Theorem 1, and its corollary)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from kshot.errors import ConfigError, check_positive
from kshot.experiments import plots
from kshot.experiments.findings import Experiment, Findings, Record, check_fit, experiments, over_seeds
from kshot.intervals import fit_power_law, mean_interval
from kshot.theory.infinite_width import Network, kernels
from kshot.theory.tasks import squared_distance_tasks


@experiments.register("spectrum")
@dataclass(kw_only=True, eq=False)
class Spectrum(Experiment):
    """The matrices that MTL and ANIL invert approach each other like 1/L^2 (W21, proof of Theorem 1).

    The distance is |T^-1 - Phi_MTL^-1|, the largest singular value over all points of all training tasks, for plain and
    for residual networks; the latter are those of the corollary, with LayerNorm after each block or before its branch.

    Parameters
    ----------
    depths
        Numbers L of weight layers.
    networks
        Any of "relu", "residual", "residual-postnorm" and "residual-prenorm".
    tasks
        Training tasks.
    points
        Points per training task.
    seeds
        Seeds of the tasks; one repetition each.
    """

    depths: Sequence[int] = (5, 10, 20, 40, 80, 160, 320)
    networks: Sequence[Network] = ("relu", "residual", "residual-postnorm", "residual-prenorm")
    tasks: int = 20
    points: int = 10
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        check_positive(depths=self.depths, tasks=self.tasks, points=self.points)
        check_fit(self.seeds, depths=self.depths)
        unknown = set(self.networks) - set(get_args(Network))
        if unknown or not self.networks:
            raise ConfigError(f"networks are {list(self.networks)}; choose among {', '.join(get_args(Network))}")
        self.depths = sorted(self.depths)

    def run(self, *, progress: bool = False) -> Findings:
        """The norm for every network and depth, the fitted exponents, and the picture."""
        rows: list[Record] = []
        laws = []
        bar = tqdm(total=len(self.networks) * len(self.seeds) * len(self.depths), disable=not progress)
        for network in self.networks:
            norms = np.empty((len(self.seeds), len(self.depths)))
            for place in np.ndindex(*norms.shape):
                norms[place] = self._norm(self.seeds[place[0]], self.depths[place[1]], network)
                bar.update()
            # the statement is about large L
            laws.append(fit_power_law(self.depths[-3:], norms[:, -3:]))
            for depth, values in zip(self.depths, norms.T):
                mean, ci95 = mean_interval(values)
                row: Record = {"network": network, "depth": depth, "norm": mean}
                rows.append(row | {"norm_ci95": ci95, "seeds": len(self.seeds)})
        bar.close()
        exponents = "; ".join(f"{network} {law.exponent_text}" for network, law in zip(self.networks, laws))
        verdict = (
            f"exponent of |T^-1 - Phi_MTL^-1| over L = {self.depths[-3:]}, -2 expected: {exponents}; "
            f"{self.tasks} training tasks of {self.points} points, {over_seeds(self.seeds, fitted=True)}"
        )
        return Findings(rows, verdict, lambda figure: self._draw(figure, rows))

    def _norm(self, seed: int, depth: int, network: Network) -> float:
        """|T^-1 - Phi_MTL^-1| on the tasks of one seed."""
        inputs = squared_distance_tasks(seed, tasks=self.tasks, points=self.points, test_tasks=1).inputs
        task = torch.arange(len(inputs)).repeat_interleave(len(inputs[0]))
        nngp, ntk = kernels(torch.cat(list(inputs)), depth=depth, network=network)
        mtl = ntk - nngp * (task[:, None] != task)
        inverses = [torch.cholesky_inverse(torch.linalg.cholesky(system)) for system in (ntk, mtl)]
        return float(torch.linalg.eigvalsh(inverses[0] - inverses[1]).abs().max())

    def _draw(self, figure: Figure, rows: Sequence[Record]) -> None:
        axes = figure.subplots()
        plots.logarithmic(axes)
        for style, network in enumerate(self.networks):
            of_network = [row for row in rows if row["network"] == network]
            mean, ci95 = ([float(row[column]) for row in of_network] for column in ("norm", "norm_ci95"))
            plots.curve(axes, self.depths, mean, ci95=ci95, label=network, style=style)
        plots.slope(
            axes, self.depths, exponent=-2, through=(self.depths[-1], 0.6 * float(rows[len(self.depths) - 1]["norm"]))
        )
        plots.finish(axes, "The matrices that MTL and ANIL invert", xlabel="depth L", ylabel="|T^-1 - Phi_MTL^-1|")
