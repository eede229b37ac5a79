"""Do clusters of task solutions find the domains? By relabelling, gradient steps and part of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.evaluation.agreement import agreement
from kshot.experiments.domain_tasks import DomainTasks, Record, agreement_columns
from kshot.experiments.findings import Findings
from kshot.experiments.plots import STYLES, finish
from kshot.learners import MAML, Learner
from kshot.learners.initialization import as_vectors, batch_norm_weights
from kshot.learners.relabelling import with_equal_rows

STEPS = (1, 3, 5, 10, 20)  # after which solutions are clustered; 20 as Z21
PARTS = ("all", "body", "all without norms", "body without norms")
_RESTARTS = 10  # of k-means


def solution_clusters(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    ways: int = 5,
    shots: int = 5,
    tasks: int = 50,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """Agreement of clusters of task solutions with domains, by label shifts, gradient steps and part of the weights.

    Every task is solved from the learner's initialisation under each of the N cyclic shifts of its labels; k-means puts
    the means over the first S shifts into as many clusters as there are domains. "shared-head" is one descent from
    equal rows of the head, of which the body is clustered.

    Parameters
    ----------
    learners
        MAML, or learners that build on it, trained, by the names that the picture shows; of TSA-MAML, theta*.
    split, ways, shots
        As for `kshot.experiments.task_domains.group_usage`.
    tasks
        Tasks per domain.
    seed
        Names the set of tasks, and the first centroids of k-means.
    progress
        Show bars on the terminal.

    Returns
    -------
    Findings
        One line per learner, kind of relabelling, number of steps and part: normalised mutual information and adjusted
        Rand index of clusters and domains with their 95% intervals over tasks, and the descents' passes per task.

    Raises
    ------
    ConfigError, DataError
        As for `kshot.experiments.adaptation_curves.adaptation_steps`.
    """
    drawn = DomainTasks.of(split, ways=ways, shots=shots, tasks=tasks, seed=seed)
    rows: list[Record] = []
    for name, learner in learners.items():
        if not isinstance(learner, MAML):
            raise ConfigError(f"{name} is a {type(learner).__name__}, which has no gradient steps as MAML has")
        drawn.check_fit(learner)
        for relabelling, points in _relabelled(name, learner, drawn, progress=progress):
            rows += [{"run": name} | row | drawn.columns() for row in _clustered(learner, points, relabelling, drawn)]
    size = (4.2 * len(PARTS) / 2, 0.9 + 3.2 * 2 * len(learners))
    return Findings(rows, _verdict(rows, str(drawn)), lambda figure: _draw(figure, rows, str(drawn)), size)


def _relabelled(
    name: str, learner: MAML, drawn: DomainTasks, *, progress: bool
) -> Iterator[tuple[Record, NDArray[np.float32]]]:
    """Kinds of relabelling, and the task solutions (M, steps, D) under each: means over 1 to N shifts, equal rows."""
    total = np.zeros((), np.float32)
    for shift in range(drawn.ways):
        bar = f"{name}, shift {shift}" if progress else None
        total = total + drawn.measured(learner, _paths(learner, shift, shared=False), bar=bar)
        yield {"symmetrize": "shifts", "shifts": shift + 1}, total / (shift + 1)
    bar = f"{name}, equal rows" if progress else None
    yield {"symmetrize": "shared-head", "shifts": 1}, drawn.measured(learner, _paths(learner, 0, shared=True), bar=bar)


def _clustered(learner: MAML, points: NDArray[np.float32], relabelling: Record, drawn: DomainTasks) -> Iterator[Record]:
    """How clusters of the solutions (M, steps, D) agree with domains, after each number of steps, by part."""
    shared, descents = relabelling["symmetrize"] == "shared-head", int(relabelling["shifts"])
    for place, steps in enumerate(STEPS):
        for part, kept in parts_of(learner).items():
            if shared and not part.startswith("body"):
                continue
            clusters = KMeans(len(drawn.names), n_init=_RESTARTS, random_state=drawn.seed % 2**32)
            agreed = agreement(clusters.fit(points[:, place, kept]).labels_, drawn.domains)
            passes = 1 if steps == 1 else steps * descents
            yield relabelling | {"steps": steps, "part": part, "passes": passes} | agreement_columns(agreed)


def parts_of(learner: MAML) -> dict[str, NDArray[np.bool_]]:
    """For each of `PARTS`, which of the adapting weights, laid side by side, belong to it."""
    norms = batch_norm_weights(learner.network)
    sizes = {name: weight[0].numel() for name, weight in learner.initial(1).items() if name in learner.adapting}
    body = np.concatenate([np.full(size, not name.startswith("head.")) for name, size in sizes.items()])
    others = np.concatenate([np.full(size, name not in norms) for name, size in sizes.items()])
    masks = (np.ones_like(body), body, others, body & others)
    return {part: mask for part, mask in zip(PARTS, masks) if mask.any()}


def _paths(learner: MAML, shift: int, *, shared: bool) -> Callable[[Episodes], Tensor]:
    """A function of tasks: where gradient descent is after each of `STEPS`, less where it started, (B, steps, D)."""

    @torch.enable_grad()
    def paths(episodes: Episodes) -> Tensor:
        labelled = replace(episodes, support_labels=(episodes.support_labels + shift) % episodes.ways)
        start = learner.initial(episodes.tasks)
        weights = start = with_equal_rows(start) if shared else start
        points, done = [], 0
        for steps in STEPS:
            weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            weights = learner.adapted(labelled, steps - done, start=weights)
            done = steps
            points.append(as_vectors(weights[name].detach() - start[name].detach() for name in learner.adapting))
        return torch.stack(points, 1)

    return paths


def _verdict(rows: Sequence[Record], protocol: str) -> str:
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        of_run = [row for row in rows if row["run"] == name]
        published = next(row for row in of_run if (row["shifts"], row["steps"], row["part"]) == (1, STEPS[-1], "all"))
        best = max(of_run, key=lambda row: (round(float(row["nmi"]), 6), -int(row["passes"])))
        parts.append(f"{name} as published {_shown(published)}, best {_shown(best)} ({_label(best)}, {best['part']})")
    return f"Normalised mutual information of clusters and domains: {'; '.join(parts)} ({protocol}; 95% intervals)."


def _shown(row: Record) -> str:
    return f"{float(row['nmi']):.3f} ({float(row['nmi_low95']):.3f} to {float(row['nmi_high95']):.3f})"


def _label(row: Record) -> str:
    kind = "equal rows" if row["symmetrize"] == "shared-head" else f"{row['shifts']} shifts"
    return f"{kind}, {row['steps']} steps"


def _draw(figure: Figure, rows: Sequence[Record], protocol: str) -> None:
    figure.suptitle(f"{protocol}; bars are 95% intervals over tasks", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    grid = figure.subplots(2 * len(runs), 2, squeeze=False, sharey=True).reshape(len(runs), -1)
    for line, name in zip(grid, runs):
        for axes, part in zip(line, PARTS):
            of_part = [row for row in rows if (row["run"], row["part"]) == (name, part)]
            kinds = list(dict.fromkeys((row["symmetrize"], row["shifts"]) for row in of_part))
            for style, kind in enumerate(kinds):
                drawn = [row for row in of_part if (row["symmetrize"], row["shifts"]) == kind]
                low, value, high = (
                    np.asarray([row[key] for row in drawn]) for key in ("nmi_low95", "nmi", "nmi_high95")
                )
                shared = kind[0] == "shared-head"
                look = {"color": "#666666", "marker": "x"} if shared else STYLES[style % len(STYLES)]
                label = "equal rows" if shared else f"{kind[1]} shift{'s' if int(kind[1]) > 1 else ''}"
                axes.errorbar(
                    [row["steps"] for row in drawn], value, np.abs([value - low, high - value]),
                    lw=1.2, ms=4, capsize=2, label=label, ls="--" if shared else "-", **look,
                )  # fmt: skip
            axes.set(ylim=(-0.03, 1.03), xscale="log", xticks=STEPS, xticklabels=STEPS)
            axes.minorticks_off()
            finish(axes, f"{name}: {part}", xlabel="gradient steps", ylabel="mutual information")
