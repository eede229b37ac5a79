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
from tqdm import tqdm

from kshot.backbones.task_weights import forward_per_task
from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Split
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, TaskShape
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.features import device_of, evaluating
from kshot.experiments.findings import Findings
from kshot.experiments.plots import STYLES
from kshot.intervals import mean_interval
from kshot.learners import TSAMAML, Learner
from kshot.report.tables import percent

_TASKS_AT_ONCE = 16
_DRAWN_AT_ONCE = 2048
_DIMENSIONS = 50  # that t-SNE gets, of the largest variance, as is usual

Row = dict[str, float | int | str]


def group_usage(
    learners: Mapping[str, Learner],
    split: Split,
    ways: int = 5,
    shots: int = 5,
    tasks: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """How often the tasks of each domain use each group, as a heat map.

    learners: TSA-MAML, trained, by the names that the picture shows.
    split: the classes that tasks are drawn from; a domain is a group of them (dataset of a mixture, alphabet, script).
    ways: classes a task.
    shots: support images a class.
    tasks: tasks of each domain (Z21: 1000).
    seed: names the set of tasks.
    progress: show a bar on the terminal.
    """
    check_positive(tasks=tasks)
    sampler = EpisodeSampler(split, TaskShape(ways, shots, 0), seed, within_domain=True)
    numbers = tasks_of_domains(sampler, tasks)
    rows: list[Row] = []
    for name, learner in learners.items():
        own = _tsa_maml(name, learner, ways)
        every = np.concatenate(list(numbers.values()))
        chosen = _for_tasks(own, sampler, every, own.assigned, name if progress else None).reshape(len(numbers), tasks)
        for domain, groups in zip(numbers, chosen):
            for group in range(own.groups):
                count = int((groups == group).sum())
                low, high = binomtest(count, tasks).proportion_ci(method="wilson")
                row: Row = {"run": name, "domain": domain, "group": group, "frequency": count / tasks}
                row |= {"low95": float(low), "high95": float(high), "dataset": split.dataset, "split": split.name}
                rows.append(row | {"ways": ways, "shots": shots, "tasks": tasks, "seed": seed})
    protocol = f"{ways}-way {shots}-shot, {tasks} tasks of each domain of {split.dataset}/{split.name}, seed {seed}"
    size = (max(4.5, 1.2 + 0.75 * len(rows) / len(numbers)) + 1, 1.8 + 0.45 * len(numbers))
    return Findings(rows, _usage_verdict(rows, protocol), lambda figure: _draw_usage(figure, rows, protocol), size)


def task_map(
    learners: Mapping[str, Learner],
    split: Split,
    method: Literal["tsne", "pca"] = "tsne",
    ways: int = 5,
    shots: int = 5,
    tasks: int = 200,
    seed: int = 0,
    progress: bool = False,
) -> Findings:
    """Two maps of tasks, by their features and by their adapted parameters, coloured by domain.

    A task's feature is the mean over its support images under theta*, and its parameters are where gradient descent
    takes it from theta*. Beside each map stands the share of tasks whose nearest neighbour, in all dimensions, is of
    their own domain.

    learners: TSA-MAML, trained, by the names that the picture shows.
    split: the classes that tasks are drawn from; a domain is a group of them (dataset of a mixture, alphabet, script).
    method: how many dimensions become two: "tsne" keeps neighbours together, "pca" is linear.
    ways: classes a task.
    shots: support images a class.
    tasks: tasks of each domain.
    seed: names the set of tasks, and the random numbers of t-SNE.
    progress: show bars on the terminal.
    """
    if method not in ("tsne", "pca"):
        raise ConfigError(f"method is {method!r}; choose one of: tsne, pca")
    check_positive(tasks=tasks)
    sampler = EpisodeSampler(split, TaskShape(ways, shots, 0), seed, within_domain=True)
    numbers = tasks_of_domains(sampler, tasks)
    every, domains = np.concatenate(list(numbers.values())), np.repeat(list(numbers), tasks)
    rows: list[Row] = []
    for name, learner in learners.items():
        own = _tsa_maml(name, learner, ways)
        seen: dict[str, Any] = {}
        for kind, function in (("feature", _features(own)), ("parameters", own.task_vectors)):
            points = _for_tasks(own, sampler, every, function, f"{name}, {kind}" if progress else None)
            seen[kind] = two_dimensions(points, method, seed), own_neighbours(points, domains)
        for place, (task, domain) in enumerate(zip(every.tolist(), domains.tolist())):
            row: Row = {"run": name, "task": task, "domain": domain}
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


def own_neighbours(points: NDArray[Any], domains: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the nearest other point is of the same domain, (M,), for points (M, D)."""
    rows = torch.from_numpy(points).double()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return domains[distances.fill_diagonal_(torch.inf).argmin(1).numpy()] == domains


def _tsa_maml(name: str, learner: Learner, ways: int) -> TSAMAML:
    if not isinstance(learner, TSAMAML):
        raise ConfigError(f"{name} is a {type(learner).__name__}, which has no groups; give runs of tsa-maml")
    learner.check_ways(ways)
    return learner


def _for_tasks(
    learner: TSAMAML, sampler: EpisodeSampler, numbers: IntArray, function: Any, bar: str | None
) -> NDArray[Any]:
    """What a function of prepared tasks returns for the tasks with these numbers, (M, ...)."""
    pieces: list[Tensor] = []
    starts = range(0, len(numbers), _TASKS_AT_ONCE)
    with evaluating(learner, "float32"), torch.no_grad():
        for start in tqdm(starts, desc=bar, unit_scale=_TASKS_AT_ONCE, unit="task", disable=bar is None):
            raw = sampler.episodes(numbers[start : start + _TASKS_AT_ONCE], device_of(learner))
            pieces += learner.by_chunk(function, prepare_images(raw, sampler.split.normalization))
    return torch.cat(pieces).cpu().numpy()


def _features(learner: TSAMAML) -> Any:
    """The mean feature (B, D) of each task's support images under theta*."""

    def features(episodes: Episodes) -> Tensor:
        weights = learner.initial(episodes.tasks).items()
        prefix = "backbone."
        own = {name.removeprefix(prefix): weight for name, weight in weights if name.startswith(prefix)}
        return forward_per_task(learner.backbone, own, episodes.support).mean(1)

    return features


def _usage_verdict(rows: Sequence[Row], protocol: str) -> str:
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        favourites = []
        for domain in dict.fromkeys(row["domain"] for row in rows):
            own = [row for row in rows if (row["run"], row["domain"]) == (name, domain)]
            best = max(own, key=lambda row: float(row["frequency"]))
            low, high = (100 * float(best[edge]) for edge in ("low95", "high95"))
            favourites.append(
                f"{domain} group {best['group']} in {100 * float(best['frequency']):.1f} % ({low:.1f} to {high:.1f})"
            )
        parts.append(f"{name}: {', '.join(favourites)}")
    return f"The group that each domain uses most: {'; '.join(parts)} ({protocol}; 95% intervals over tasks)."


def _draw_usage(figure: Figure, rows: Sequence[Row], protocol: str) -> None:
    figure.suptitle(f"{protocol};\nbelow each share its 95% interval", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    for axes, name in zip(figure.subplots(1, len(runs), squeeze=False, sharey=True)[0], runs):
        own = [row for row in rows if row["run"] == name]
        shares = np.asarray([row["frequency"] for row in own], np.float64).reshape(len(domains), -1)
        axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for place, row in enumerate(own):
            y, x = divmod(place, shares.shape[1])
            text = f"{100 * shares[y, x]:.0f} %\n{100 * float(row['low95']):.0f}–{100 * float(row['high95']):.0f}"
            colour = "white" if shares[y, x] > 0.55 else "black"
            axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_title(str(name), fontsize=10, loc="left")
        axes.set_xticks(range(shares.shape[1]))
        axes.set_yticks(range(len(domains)), domains)
        axes.set_xlabel("group")


def _map_verdict(rows: Sequence[Row], protocol: str) -> str:
    rows_of_one = [row for row in rows if row["run"] == rows[0]["run"]]
    sizes = Counter(row["domain"] for row in rows_of_one)
    chance = sum(size * (size - 1) for size in sizes.values()) / (len(rows_of_one) * (len(rows_of_one) - 1))
    parts = []
    for name in dict.fromkeys(row["run"] for row in rows):
        shares = [f"by {kind} {_share(rows, name, kind)} %" for kind in ("feature", "parameters")]
        parts.append(f"{name} {' and '.join(shares)}")
    return (
        f"Tasks whose nearest neighbour is of their own domain: {'; '.join(parts)} "
        f"({100 * chance:.1f} % by chance; {protocol}; 95% intervals over tasks)."
    )


def _share(rows: Sequence[Row], name: Any, kind: str) -> str:
    hits = np.asarray([row[f"{kind}_neighbour_of_domain"] for row in rows if row["run"] == name], np.float64)
    return percent(*mean_interval(hits))


def _draw_map(figure: Figure, rows: Sequence[Row], protocol: str) -> None:
    figure.suptitle(f"{protocol}; in brackets: nearest neighbour of the own domain, 95% interval", fontsize=8.5)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for line, name in zip(figure.subplots(len(runs), 2, squeeze=False), runs):
        own = [row for row in rows if row["run"] == name]
        for axes, kind in zip(line, ("feature", "parameters")):
            for style, domain in enumerate(dict.fromkeys(row["domain"] for row in own)):
                points = [(row[f"{kind}_x"], row[f"{kind}_y"]) for row in own if row["domain"] == domain]
                look = STYLES[style % len(STYLES)]
                # markers go on changing when colours begin again
                marker = "os^Dv<>PX*"[(style + style // len(STYLES)) % 10]
                axes.scatter(
                    *zip(*points), s=16, alpha=0.75, lw=0, color=look["color"], marker=marker, label=str(domain)
                )
            axes.set_title(f"{name}: {kind}, {own[0]['method']} ({_share(rows, name, kind)} %)", loc="left", fontsize=9)
            axes.set(xticks=[], yticks=[])
    handles, labels = line[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False, fontsize=8)
