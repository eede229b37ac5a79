"""R2-D2 (Bertinetto et al. 2019): ridge regression in closed form, with learnt penalty, scale and bias.

The learner solves in the dual, by Woodbury's identity; here the primal is solved, one task after the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from plain import WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.learners import R2D2

OPTIONS = {"l2": 0.7, "scale": 3.0, "bias": 0.5, "random_shots": False}


def logits(weights: Weights, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """scale * q W + bias, W the minimiser of  mean over support images of |x W - y|^2  + l2 |W|^2  (eqs. 4-6)."""
    penalty = len(support) * weights["adaptation.heads.log_l2"].exp()
    design = support.T @ support + penalty * torch.eye(support.shape[1]).double()
    fitted = torch.linalg.solve(design, support.T @ F.one_hot(labels, WAYS).double())
    return weights["adaptation.scale"] * query @ fitted + weights["adaptation.bias"]


def test_training_minimises_the_cross_entropy_over_network_penalty_and_scale() -> None:
    learner, tasks = build(R2D2, **OPTIONS), draw_tasks()
    boundary = tasks.support.shape[1]

    def objective(weights: Weights, task: int) -> Tensor:
        maps = features(weights, torch.cat([tasks.support[task], tasks.query[task]]))
        found = logits(weights, maps[:boundary], tasks.support_labels[task], maps[boundary:])
        return F.cross_entropy(found, tasks.query_labels[task])

    # one number that is added to all scores changes no probability
    check_training(learner, tasks, objective, without_effect=("adaptation.bias",))


def test_a_test_image_is_scored_by_the_solution() -> None:
    learner, tasks = build(R2D2, **OPTIONS).eval(), draw_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        close(actual, logits(weights, support, tasks.support_labels[task], query), f"task {task}")
