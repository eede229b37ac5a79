"""MetaOptNet (Lee et al. 2019): a support vector machine or ridge regression, differentiated through its optimum.

The machine's quadratic program is solved by Clarabel, which says which coefficients are at their bounds. The others
solve linear equations (the KKT conditions), which autograd differentiates.
"""

from __future__ import annotations

import clarabel
import numpy as np
import pytest
import scipy.sparse
import torch
import torch.nn.functional as F
from plain import WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.learners import MetaOptNet

C, SHIFT, L2 = 0.1, 0.5, 7.0


def at_bound(kernel: Tensor, members: Tensor) -> Tensor:
    """Which coefficients (S, N) of  min 1/2 sum_n a_n' K a_n - sum_s a[s, y_s]  are at a bound.

    Subject to a[s, n] <= C [n = y_s] and sum_n a[s, n] = 0 (eqs. 9-10).
    """
    count = len(kernel)
    quadratic = scipy.sparse.csc_matrix(np.kron(kernel.detach().numpy(), np.eye(WAYS)))
    sums = scipy.sparse.csc_matrix(np.kron(np.eye(count), np.ones((1, WAYS))))
    constraints = scipy.sparse.vstack([sums, scipy.sparse.eye(count * WAYS)], "csc")
    linear = -members.numpy().ravel()
    bounds = np.concatenate([np.zeros(count), -C * linear])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    cones = [clarabel.ZeroConeT(count), clarabel.NonnegativeConeT(count * WAYS)]
    solution = clarabel.DefaultSolver(quadratic, linear, constraints, bounds, cones, settings).solve()
    slack, multiplier = np.asarray(solution.s)[count:], np.asarray(solution.z)[count:]
    assert np.abs(np.log(slack / multiplier)).min() > 5, "no coefficient is at its bound only just"
    return torch.from_numpy(slack < multiplier).view(count, WAYS)


def support_vector_machine(support: Tensor, labels: Tensor) -> Tensor:
    """Weights (N, D): sum_s a[s, n] x_s with the coefficients at the optimum."""
    count, members = len(support), F.one_hot(labels, WAYS).double()
    kernel = support @ support.T + SHIFT * torch.eye(count).double()
    bound = at_bound(kernel, members).flatten()
    assert bound.any()
    assert not bound.all()
    # free coefficients: (K a)[s, n] + lambda_s = [n = y_s]; those at a bound: a[s, n] = C [n = y_s]; and the sums
    identity, ones = torch.eye(count).double(), torch.ones(WAYS, 1).double()
    stationary = torch.cat([torch.kron(kernel, torch.eye(WAYS).double()), torch.kron(identity, ones)], 1)
    fixed = torch.cat([torch.eye(count * WAYS), torch.zeros(count * WAYS, count)], 1).double()
    sums = torch.cat([torch.kron(identity, ones.T), torch.zeros(count, count)], 1)
    matrix = torch.cat([torch.where(bound[:, None], fixed, stationary), sums])
    right = torch.cat([torch.where(bound, C * members.flatten(), members.flatten()), torch.zeros(count)])
    coefficients = torch.linalg.solve(matrix, right)[: count * WAYS].view(count, WAYS)
    return coefficients.T @ support


def ridge(support: Tensor, labels: Tensor) -> Tensor:
    """Weights (N, D) that minimise |X W' - Y|^2 + l2 |W|^2, in the primal."""
    design = support.T @ support + L2 * torch.eye(support.shape[1]).double()
    return torch.linalg.solve(design, support.T @ F.one_hot(labels, WAYS).double()).T


HEADS = pytest.mark.parametrize(("head", "solve"), [("svm", support_vector_machine), ("ridge", ridge)])
OPTIONS = {"c": C, "diagonal_shift": SHIFT, "l2": L2, "scale": 3.0, "label_smoothing": 0.1}


@HEADS
def test_training_minimises_the_smoothed_cross_entropy_of_scaled_scores(head: str, solve) -> None:
    learner, tasks = build(MetaOptNet, head=head, **OPTIONS), draw_tasks(shots=3)
    boundary = tasks.support.shape[1]

    def objective(weights: Weights, task: int) -> Tensor:
        maps = features(weights, torch.cat([tasks.support[task], tasks.query[task]]))
        fitted = solve(maps[:boundary], tasks.support_labels[task])
        logits = weights["adaptation.scale"] * maps[boundary:] @ fitted.T
        members = F.one_hot(tasks.query_labels[task], WAYS).double()
        target = 0.9 * members + 0.1 / (WAYS - 1) * (1 - members)
        return -(target * logits.log_softmax(1)).sum(1).mean()

    check_training(learner, tasks, objective, rtol=1e-7)


@HEADS
def test_a_test_image_is_scored_by_the_optimum(head: str, solve) -> None:
    learner, tasks = build(MetaOptNet, head=head, **OPTIONS).eval(), draw_tasks(shots=3)
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        fitted = solve(support, tasks.support_labels[task])
        close(actual, weights["adaptation.scale"] * query @ fitted.T, f"task {task}", rtol=1e-8)
