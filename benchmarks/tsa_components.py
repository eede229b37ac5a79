"""How well groups of task solutions are domains, by the axes along which distances are taken; on validation tasks.

    python benchmarks/tsa_components.py runs/tsa-claim/seed0/theta --data groups --out components.csv

Solutions of training tasks, averaged over all label shifts, are grouped by k-means into as many groups as there are
domains; tasks of the validation classes then take the nearest group. All from the same theta* and the same tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

import kshot
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.evaluation.agreement import agreement
from kshot.evaluation.task_loop import for_tasks
from kshot.files import write_csv
from kshot.learners import TSAMAML
from kshot.tsa.clustering import cluster
from kshot.tsa.train import load_pretrained


def solutions(learner: TSAMAML, split: kshot.Split, tasks: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors (tasks, D) of tasks within domains, and the number (tasks,) of each task's domain."""
    sampler = EpisodeSampler(split, TaskShape(learner.ways, 5, 0), seed=seed, within_domain=True)
    numbers = np.arange(tasks)
    domains = np.unique(np.asarray(split.domains), return_inverse=True)[1][sampler.rows(numbers).classes[:, 0]]

    def vectors(episodes: kshot.Episodes) -> torch.Tensor:
        return torch.cat(learner.by_chunk(learner.task_vectors, episodes))

    parts = for_tasks(learner, vectors, sampler=sampler, numbers=numbers, normalization=split.normalization)
    return torch.cat(parts).numpy(), domains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("theta", type=Path)
    parser.add_argument("--data", default="groups")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--components", type=int, nargs="+", default=[0, 5, 10, 20, 30, 40, 60])
    parser.add_argument("--solutions", type=int, nargs="+", default=[150, 600])
    parser.add_argument("--tasks", type=int, default=240, help="of the validation classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of k-means")
    given = parser.parse_args()
    data, run = kshot.load(given.data), kshot.Run(given.theta)
    options = {name: run.learner.options[name] for name in ("ways", "inner_rate")}
    learner = TSAMAML(run.learner.backbone, **options, symmetrize="shifts", assignment_steps=1, cluster_norms=False)
    load_pretrained(learner, given.theta)
    train, _ = solutions(learner.eval(), data.train, max(given.solutions), seed=5)
    unseen, domains = solutions(learner, data.val, given.tasks, seed=5)
    groups = len(set(domains))
    rows: list[dict[str, object]] = []
    for count in given.solutions:
        for components in given.components:
            found = [cluster(train[:count], groups, components=components, seed=seed) for seed in given.seeds]
            agreed = []
            for one in found:
                points, anchors = unseen, one.centroids
                if components > 0:
                    points, anchors = points @ one.axes.T, anchors @ one.axes.T
                nearest = torch.cdist(torch.from_numpy(points), torch.from_numpy(anchors)).argmin(1).numpy()
                agreed.append(agreement(nearest, domains))
            row: dict[str, object] = {"solutions": count, "components": components, "tasks": given.tasks}
            for seed, one in zip(given.seeds, agreed):
                row |= {f"nmi_seed{seed}": round(one.nmi, 4)}
                row |= {f"low95_seed{seed}": round(one.nmi_interval[0], 4)}
                row |= {f"high95_seed{seed}": round(one.nmi_interval[1], 4)}
            rows.append(row)
    write_csv(given.out, rows)
    print(tabulate([{key: row[key] for key in row if "95" not in key} for row in rows], headers="keys"))


if __name__ == "__main__":
    main()
