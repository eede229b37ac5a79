"""How well groups of task solutions are domains, by the axes along which distances are taken; on validation tasks.

    python benchmarks/tsa_components.py runs/tsa-claim/seed0/theta --data groups --out components.csv

Solutions of training tasks, averaged over all label shifts, are grouped by k-means into as many groups as there are
domains; tasks of the validation classes then take the nearest group. All from the same theta* and the same tasks.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from tabulate import tabulate

import kshot
from kshot.evaluation.agreement import agreement
from kshot.experiments.domain_tasks import DomainTasks, agreement_columns
from kshot.files import write_csv
from kshot.learners import TSAMAML
from kshot.tsa.clustering import cluster
from kshot.tsa.train import load_pretrained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("theta", type=Path)
    parser.add_argument("--data", default="groups")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--components", type=int, nargs="+", default=[0, 5, 10, 20, 30, 40, 60])
    parser.add_argument("--solutions", type=int, nargs="+", default=[50, 200], help="of each domain")
    parser.add_argument("--tasks", type=int, default=80, help="of the validation classes of each domain")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="name the tasks, and first centroids")
    given = parser.parse_args()
    data, run = kshot.load(given.data), kshot.Run(given.theta)
    options = {name: run.learner.options[name] for name in ("ways", "inner_rate")}
    learner = TSAMAML(run.learner.backbone, **options, symmetrize="shifts", assignment_steps=1, cluster_norms=False)
    load_pretrained(learner, given.theta)
    learner.eval()
    rows: list[dict[str, object]] = []
    for count, seed in itertools.product(given.solutions, given.seeds):
        tasks = {"ways": learner.ways, "shots": 5, "seed": seed}
        drawn, unseen = (
            DomainTasks.of(split, **tasks, tasks=size) for split, size in ((data.train, count), (data.val, given.tasks))
        )
        vectors, asked = (each.measured(learner, learner.task_vectors, bar=None) for each in (drawn, unseen))
        for components in given.components:
            found = cluster(vectors, len(unseen.names), components=components, seed=seed)
            points, anchors = asked, found.centroids
            if components > 0:
                points, anchors = points @ found.axes.T, anchors @ found.axes.T
            nearest = torch.cdist(torch.from_numpy(points), torch.from_numpy(anchors)).argmin(1).numpy()
            row: dict[str, object] = {"solutions": len(vectors), "components": components, "tasks": len(asked)}
            rows.append(row | {"seed": seed} | agreement_columns(agreement(nearest, unseen.domains)))
    write_csv(given.out, rows)
    print(tabulate(rows, headers="keys", floatfmt=".3f"))


if __name__ == "__main__":
    main()
