"""Maps of tasks by their features and by their adapted parameters (Z21 fig. 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from kshot.backbones.task_weights import forward_per_task
from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.plan import check_tasks
from kshot.experiments.domain_tasks import DomainTasks, Record
from kshot.experiments.findings import Findings
from kshot.experiments.plots import STYLES
from kshot.intervals import mean_interval
from kshot.learners import TSAMAML, Learner
from kshot.learners.initialization import as_vectors
from kshot.report.tables import percent
from kshot.solvers.descent import Weights

_TITLES = {
    "feature": "feature",
    "parameters": "parameters",
    "symmetrised": "parameters, symmetrised",
    "group_parameters": "parameters from its group",
}
_DIMENSIONS = 50  # of the largest variance, which t-SNE starts from, as is usual


def task_map(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    method: Literal["tsne", "pca"] = "tsne",
    steps: int | None = None,
    ways: int = 5,
    shots: int = 5,
    tasks: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """Four maps of tasks, by their features and by their adapted parameters, coloured by domain (Z21 fig. 1a, b, c).

    A task's feature is the mean over its support images under theta*; its parameters are where gradient descent takes
    it from theta* as published; symmetrised, their mean over all cyclic shifts of the labels; and, on the last map,
    where it gets from the initialisation of its group. The title of each map says the share of tasks whose nearest
    neighbour, in all dimensions, is from the same domain.

    Parameters
    ----------
    learners, split, ways, shots
        As for `kshot.experiments.task_domains.group_usage`.
    method
        How many dimensions become two: "tsne" keeps neighbours together, "pca" is linear.
    steps
        Steps of gradient descent per task (Z21: 10); None for as many as the learner takes to find a task's group.
    tasks
        Tasks per domain, at least 2.
    seed
        Names the set of tasks, and the random numbers of t-SNE.
    progress
        Show bars on the terminal.

    Returns
    -------
    Findings
        One line per learner and task: its places on both maps, and whether its neighbours are from its domain.

    Raises
    ------
    ConfigError, DataError
        As for `group_usage`.
    """
    if method not in ("tsne", "pca"):
        raise ConfigError(f"method is {method!r}; choose one of: tsne, pca")
    if steps is not None:
        check_positive(steps=steps)
    check_tasks(tasks)
    drawn = DomainTasks.of(split, ways=ways, shots=shots, tasks=tasks, seed=seed)
    rows: list[Record] = []
    for name, learner in learners.items():
        tsa_maml = drawn.checked(name, learner)
        seen: dict[str, Any] = {}
        for kind, function in _measures(tsa_maml, steps).items():
            points = drawn.measured(tsa_maml, function, bar=f"{name}, {kind}" if progress else None)
            seen[kind] = two_dimensions(points, method, seed), neighbours_of_domain(points, drawn.domains)
        options: Record = {"method": method, "steps": steps or tsa_maml.assignment_steps}
        for place, (task, domain) in enumerate(zip(drawn.numbers.tolist(), drawn.domains.tolist())):
            row: Record = {"run": name, "task": task, "domain": domain}
            for kind, (plane, neighbours) in seen.items():
                x, y = plane[place].tolist()
                row |= {f"{kind}_x": x, f"{kind}_y": y, f"{kind}_neighbour_of_domain": int(neighbours[place])}
            rows.append(row | options | drawn.columns())
    size = (15, 1.1 + 3.3 * len(learners))
    return Findings(rows, _map_verdict(rows, str(drawn)), lambda figure: _draw_map(figure, rows, str(drawn)), size)


def two_dimensions(points: NDArray[Any], method: Literal["tsne", "pca"], seed: int) -> NDArray[np.float64]:
    """Points (M, D) in the plane, (M, 2)."""
    state = seed % 2**32
    kept = 2 if method == "pca" else min(_DIMENSIONS, *points.shape)
    reduced = PCA(kept, random_state=state).fit_transform(points.astype(np.float64))
    if method == "tsne":
        perplexity = min(30.0, (len(points) - 1) / 3)
        reduced = TSNE(2, perplexity=perplexity, init="pca", random_state=state).fit_transform(reduced)
    return reduced.astype(np.float64)


def neighbours_of_domain(points: NDArray[Any], domains: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the nearest other point is from the same domain, (M,), for points (M, D)."""
    rows = torch.from_numpy(points).double()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return domains[distances.fill_diagonal_(torch.inf).argmin(1).numpy()] == domains


def _measures(learner: TSAMAML, steps: int | None) -> dict[str, Callable[[Episodes], Tensor]]:
    """What is mapped of each task, (B, D), by the name of the map."""
    count = learner.assignment_steps if steps is None else steps
    published = _optima(learner, count, _from_theta(learner))
    return {
        "feature": _features(learner),
        "parameters": published,
        "symmetrised": _over_shifts(published),
        "group_parameters": _optima(learner, count, learner.start),
    }


def _from_theta(learner: TSAMAML) -> Callable[[Episodes], Weights]:
    return lambda episodes: learner.initial(episodes.tasks)


def _optima(learner: TSAMAML, steps: int, start_of: Callable[[Episodes], Weights]) -> Callable[[Episodes], Tensor]:
    """Where gradient descent takes each task from its start, as vectors (B, D) of the clustered weights from theta*."""

    def optima(episodes: Episodes) -> Tensor:
        start = {name: weight.detach().requires_grad_() for name, weight in start_of(episodes).items()}
        with torch.enable_grad():
            reached = learner.adapted(episodes, steps, start=start)
        centre = learner.initial(episodes.tasks)
        return as_vectors((reached[name] - centre[name]).detach() for name in learner.clustered)

    return optima


def _over_shifts(optima: Callable[[Episodes], Tensor]) -> Callable[[Episodes], Tensor]:
    """The mean of the vectors (B, D) over all cyclic shifts of the labels."""

    def mean(episodes: Episodes) -> Tensor:
        ways = episodes.ways
        labels = [(episodes.support_labels + shift) % ways for shift in range(ways)]
        return torch.stack([optima(replace(episodes, support_labels=shifted)) for shifted in labels]).mean(0)

    return mean


def _features(learner: TSAMAML) -> Callable[[Episodes], Tensor]:
    """The mean feature (B, D) of each task's support images under theta*."""

    def features(episodes: Episodes) -> Tensor:
        weights = learner.initial(episodes.tasks).items()
        prefix = "backbone."
        of_backbone = {name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)}
        return forward_per_task(learner.backbone, of_backbone, episodes.support).mean(1)

    return features


def _map_verdict(rows: Sequence[Record], protocol: str) -> str:
    rows_of_one = [row for row in rows if row["run"] == rows[0]["run"]]
    sizes = Counter(row["domain"] for row in rows_of_one)
    chance = sum(size * (size - 1) for size in sizes.values()) / (len(rows_of_one) * (len(rows_of_one) - 1))
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        shares = [f"by {text} {_share(rows, name, kind)} %" for kind, text in _TITLES.items()]
        parts.append(f"{name} {', '.join(shares)}")
    return (
        f"Tasks whose nearest neighbour is from the same domain: {'; '.join(parts)} "
        f"({100 * chance:.1f} % by chance; {protocol}; 95% intervals over tasks)."
    )


def _share(rows: Sequence[Record], name: Any, kind: str) -> str:
    hits = np.asarray([row[f"{kind}_neighbour_of_domain"] for row in rows if row["run"] == name], np.float64)
    return percent(*mean_interval(hits))


def _draw_map(figure: Figure, rows: Sequence[Record], protocol: str) -> None:
    figure.suptitle(f"{protocol}; in brackets: nearest neighbour from the same domain, 95% interval", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for line, name in zip(figure.subplots(len(runs), len(_TITLES), squeeze=False), runs):
        of_run = [row for row in rows if row["run"] == name]
        for axes, (kind, title) in zip(line, _TITLES.items()):
            for style, domain in enumerate(dict.fromkeys(row["domain"] for row in of_run)):
                points = [(row[f"{kind}_x"], row[f"{kind}_y"]) for row in of_run if row["domain"] == domain]
                look = STYLES[style % len(STYLES)]
                # markers go on changing when colours begin again
                marker = "os^Dv<>PX*"[(style + style // len(STYLES)) % 10]
                axes.scatter(
                    *zip(*points), s=16, alpha=0.75, lw=0, color=look["color"], marker=marker, label=str(domain)
                )
            axes.set_title(
                f"{name}, {of_run[0]['method']}\n{title} ({_share(rows, name, kind)} %)", loc="left", fontsize=9
            )
            axes.set(xticks=[], yticks=[])
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
