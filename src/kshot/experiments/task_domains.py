"""What the groups of TSA-MAML have to do with the domains of its tasks (Z21 figs. 1 and 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from kshot.backbones.task_weights import forward_per_task
from kshot.data.dataset import Dataset, Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, TaskShape
from kshot.data.tasks import split_of
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.fit import check_images
from kshot.evaluation.protocol import check_tasks
from kshot.evaluation.task_loop import for_tasks
from kshot.experiments.findings import Findings
from kshot.experiments.plots import STYLES
from kshot.intervals import mean_interval
from kshot.learners import TSAMAML, Learner
from kshot.report.tables import percent

_DRAWN_AT_ONCE = 2048
_DIMENSIONS = 50  # of the largest variance, which t-SNE starts from, as is usual

Record = dict[str, float | int | str]  # one line of the table


def group_usage(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    ways: int = 5,
    shots: int = 5,
    tasks: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """How often the tasks of each domain use each group, as a heat map.

    Parameters
    ----------
    learners
        TSA-MAML, trained, by the names that the picture shows.
    split
        The classes that tasks are drawn from; a dataset stands for its test split. Tasks keep to one of its domains
        (dataset of a mixture, alphabet, superclass).
    ways
        Classes per task.
    shots
        Support images per class.
    tasks
        Tasks per domain (Z21: 1000).
    seed
        Names the set of tasks.
    progress
        Show a bar on the terminal.

    Returns
    -------
    Findings
        One line per learner, domain and group: the share of tasks with its 95% interval (Wilson).

    Raises
    ------
    ConfigError
        If an option makes no sense, or a learner is no TSA-MAML or does not fit the images.
    DataError
        If the split is too small for the tasks.
    """
    check_positive(tasks=tasks)
    split = split_of(split)
    sampler = EpisodeSampler(split, TaskShape(ways, shots, 0), seed=seed, within_domain=True)
    numbers = tasks_of_domains(sampler, tasks)
    rows: list[Record] = []
    for name, learner in learners.items():
        tsa_maml = _tsa_maml(name, learner, split, ways)
        every = np.concatenate(list(numbers.values()))
        assigned = _of_tasks(tsa_maml, sampler, every, tsa_maml.assigned, name if progress else None)
        chosen = assigned.reshape(len(numbers), tasks)
        for domain, groups in zip(numbers, chosen):
            for group in range(tsa_maml.groups):
                count = int((groups == group).sum())
                low, high = binomtest(count, tasks).proportion_ci(method="wilson")
                row: Record = {"run": name, "domain": domain, "group": group, "frequency": count / tasks}
                row |= {"low95": float(low), "high95": float(high), "dataset": split.dataset, "split": split.name}
                rows.append(row | {"ways": ways, "shots": shots, "tasks": tasks, "seed": seed})
    protocol = f"{ways}-way {shots}-shot, {tasks} tasks of each domain of {split.dataset}/{split.name}, seed {seed}"
    size = (max(4.5, 1.2 + 0.75 * len(rows) / len(numbers)) + 1, 1.8 + 0.45 * len(numbers))
    return Findings(rows, _usage_verdict(rows, protocol), lambda figure: _draw_usage(figure, rows, protocol), size)


def task_map(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    method: Literal["tsne", "pca"] = "tsne",
    ways: int = 5,
    shots: int = 5,
    tasks: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """Two maps of tasks, by their features and by their adapted parameters, coloured by domain.

    A task's feature is the mean over its support images under theta*, and its parameters are where gradient descent
    takes it from theta*. The title of each map says the share of tasks whose nearest neighbour, in all dimensions, is
    from the same domain.

    Parameters
    ----------
    learners, split, ways, shots
        As for `group_usage`.
    method
        How many dimensions become two: "tsne" keeps neighbours together, "pca" is linear.
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
    check_tasks(tasks)
    split = split_of(split)
    sampler = EpisodeSampler(split, TaskShape(ways, shots, 0), seed=seed, within_domain=True)
    numbers = tasks_of_domains(sampler, tasks)
    every, domains = np.concatenate(list(numbers.values())), np.repeat(list(numbers), tasks)
    rows: list[Record] = []
    for name, learner in learners.items():
        tsa_maml = _tsa_maml(name, learner, split, ways)
        seen: dict[str, Any] = {}
        for kind, function in (("feature", _features(tsa_maml)), ("parameters", tsa_maml.task_vectors)):
            points = _of_tasks(tsa_maml, sampler, every, function, f"{name}, {kind}" if progress else None)
            seen[kind] = two_dimensions(points, method, seed), neighbours_of_domain(points, domains)
        for place, (task, domain) in enumerate(zip(every.tolist(), domains.tolist())):
            row: Record = {"run": name, "task": task, "domain": domain}
            for kind, (plane, neighbours) in seen.items():
                x, y = plane[place].tolist()
                row |= {f"{kind}_x": x, f"{kind}_y": y, f"{kind}_neighbour_of_domain": int(neighbours[place])}
            row |= {"method": method, "dataset": split.dataset, "split": split.name, "ways": ways, "shots": shots}
            rows.append(row | {"tasks": tasks, "seed": seed})
    protocol = f"{ways}-way {shots}-shot, {tasks} tasks of each domain of {split.dataset}/{split.name}, seed {seed}"
    size = (9.5, 0.9 + 3.9 * len(learners))
    return Findings(rows, _map_verdict(rows, protocol), lambda figure: _draw_map(figure, rows, protocol), size)


def tasks_of_domains(sampler: EpisodeSampler, count: int) -> dict[str, IntArray]:
    """The numbers (count,) of the first tasks of each domain that has enough classes for one."""
    split = sampler.split
    domains = sorted(name for name, classes in Counter(split.domains).items() if classes >= sampler.shape.ways)
    found: dict[str, list[int]] = {domain: [] for domain in domains}
    start = 0
    while min(map(len, found.values())) < count:
        classes = sampler.rows(np.arange(start, start + _DRAWN_AT_ONCE)).classes[:, 0]
        for number, first in enumerate(classes.tolist(), start):
            found[split.domains[first]].append(number)
        start += _DRAWN_AT_ONCE
    return {domain: np.asarray(numbers[:count], np.int64) for domain, numbers in found.items()}


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


def _tsa_maml(name: str, learner: Learner, split: Split, ways: int) -> TSAMAML:
    """The learner, checked; ConfigError if it is no TSA-MAML, or does not fit the tasks."""
    if not isinstance(learner, TSAMAML):
        raise ConfigError(f"{name} is a {type(learner).__name__}, which has no groups; give runs of tsa-maml")
    learner.check_ways(ways)
    check_images(learner, split)
    return learner


def _of_tasks(
    learner: TSAMAML, sampler: EpisodeSampler, numbers: IntArray, function: Any, bar: str | None
) -> NDArray[Any]:
    """What a function of prepared tasks returns for the tasks with these numbers, (M, ...)."""

    @torch.no_grad()
    def of_batch(episodes: Episodes) -> Tensor:
        return torch.cat(learner.by_chunk(function, episodes))

    normalization = sampler.split.normalization
    pieces = for_tasks(learner, of_batch, sampler=sampler, numbers=numbers, normalization=normalization, progress=bar)
    return torch.cat(pieces).cpu().numpy()


def _features(learner: TSAMAML) -> Any:
    """The mean feature (B, D) of each task's support images under theta*."""

    def features(episodes: Episodes) -> Tensor:
        weights = learner.initial(episodes.tasks).items()
        prefix = "backbone."
        of_backbone = {name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)}
        return forward_per_task(learner.backbone, of_backbone, episodes.support).mean(1)

    return features


def _usage_verdict(rows: Sequence[Record], protocol: str) -> str:
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        favourites = []
        for domain in dict.fromkeys(row["domain"] for row in rows):
            of_domain = [row for row in rows if (row["run"], row["domain"]) == (name, domain)]
            best = max(of_domain, key=lambda row: float(row["frequency"]))
            low, high = (100 * float(best[edge]) for edge in ("low95", "high95"))
            favourites.append(
                f"{domain} group {best['group']} in {100 * float(best['frequency']):.1f} % ({low:.1f} to {high:.1f})"
            )
        parts.append(f"{name}: {', '.join(favourites)}")
    return f"The group that each domain uses most: {'; '.join(parts)} ({protocol}; 95% intervals over tasks)."


def _draw_usage(figure: Figure, rows: Sequence[Record], protocol: str) -> None:
    figure.suptitle(f"{protocol};\nbelow each share its 95% interval", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    for axes, name in zip(figure.subplots(1, len(runs), squeeze=False, sharey=True)[0], runs):
        of_run = [row for row in rows if row["run"] == name]
        shares = np.asarray([row["frequency"] for row in of_run], np.float64).reshape(len(domains), -1)
        axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for place, row in enumerate(of_run):
            y, x = divmod(place, shares.shape[1])
            text = f"{100 * shares[y, x]:.0f} %\n{100 * float(row['low95']):.0f}–{100 * float(row['high95']):.0f}"
            colour = "white" if shares[y, x] > 0.55 else "black"
            axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_title(str(name), fontsize=10, loc="left")
        axes.set_xticks(range(shares.shape[1]))
        axes.set_yticks(range(len(domains)), domains)
        axes.set_xlabel("group")


def _map_verdict(rows: Sequence[Record], protocol: str) -> str:
    rows_of_one = [row for row in rows if row["run"] == rows[0]["run"]]
    sizes = Counter(row["domain"] for row in rows_of_one)
    chance = sum(size * (size - 1) for size in sizes.values()) / (len(rows_of_one) * (len(rows_of_one) - 1))
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        shares = [f"by {kind} {_share(rows, name, kind)} %" for kind in ("feature", "parameters")]
        parts.append(f"{name} {' and '.join(shares)}")
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
    for line, name in zip(figure.subplots(len(runs), 2, squeeze=False), runs):
        of_run = [row for row in rows if row["run"] == name]
        for axes, kind in zip(line, ("feature", "parameters")):
            for style, domain in enumerate(dict.fromkeys(row["domain"] for row in of_run)):
                points = [(row[f"{kind}_x"], row[f"{kind}_y"]) for row in of_run if row["domain"] == domain]
                look = STYLES[style % len(STYLES)]
                # markers go on changing when colours begin again
                marker = "os^Dv<>PX*"[(style + style // len(STYLES)) % 10]
                axes.scatter(
                    *zip(*points), s=16, alpha=0.75, lw=0, color=look["color"], marker=marker, label=str(domain)
                )
            axes.set_title(
                f"{name}: {kind}, {of_run[0]['method']} ({_share(rows, name, kind)} %)", loc="left", fontsize=9
            )
            axes.set(xticks=[], yticks=[])
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
