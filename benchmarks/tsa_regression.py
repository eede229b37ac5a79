"""TSA-MAML where the groups are known: sine waves, lines and parabolas, against MAML after the same theta* and tasks.

    python benchmarks/tsa_regression.py --folder runs/tsa-curves --seed 0

writes ``results-seed0.csv``: the squared error on 1000 unseen tasks by kind of function, paired differences and ratios
to MAML, agreement of groups and kinds, and, for each arm, the mean squared distance of a task's optimum from where the
task starts (Z21 corollary 1). Every run is resumable; a larger --epochs trains longer.

Two more rows say what is there to gain, without any training: the best predictor of the query values that is linear in
the support values, by the covariance of the task's own kind of function ("linear, kind known") and by that of all kinds
("linear, kind unknown"). All kinds have a mean of zero at every x.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kshot
from kshot.data.episodes import Episodes, TaskShape
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.regression_sampler import RegressionSampler
from kshot.evaluation.agreement import agreement
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.task_loop import for_tasks
from kshot.intervals import mean_interval
from kshot.learners import MAML, TSAMAML, learners
from kshot.learners.initialization import as_vectors
from kshot.runs import checkpoints
from kshot.training import TrainingOptions, train
from kshot.tsa import Stages, train_tsa_maml

STEPS = {"ways": 1, "inner_rate": 0.01, "inner_steps": 3, "test_inner_steps": 5}
ARMS: dict[str, dict[str, Any]] = {
    "maml": {},
    "published": {"groups": 3, "assignment_steps": 5},
    "published-9": {"groups": 9, "assignment_steps": 5},
    "offset-9": {"groups": 9, "assignment_steps": 5, "assignment": "initial", "sharing": "offset"},
    "oracle": {"groups": 3},
    "oracle-offset": {"groups": 3, "sharing": "offset"},
}
OPTIMUM_STEPS = 100  # to what stands for a task's optimum


@learners.register("oracle-of-kinds")
class OracleOfKinds(TSAMAML):
    """TSA-MAML whose groups are the kinds of functions."""

    def assigned(self, episodes: Episodes) -> Tensor:
        """The kind (B,) of each task: a polynomial of degree 1 or 2 fits lines and parabolas without an error."""
        x, y = episodes.support.double(), episodes.support_labels.double()
        exact = []
        for degree in (1, 2):
            columns = x ** torch.arange(degree + 1, device=x.device)
            fitted = columns @ torch.linalg.lstsq(columns, y).solution
            exact.append((fitted - y).abs().amax((1, 2)) < 1e-3)
        return torch.where(exact[0], 1, torch.where(exact[1], 2, 0))


def trained(name: str, data: RegressionDataset, theta: Path, given: argparse.Namespace) -> MAML:
    """The learner of an arm with the weights of its last epoch; "theta" is MAML from random weights."""
    folder, options = given.folder / f"seed{given.seed}" / name, ARMS.get(name, {})
    chosen = TrainingOptions(
        ways=1, shots=10, queries=10, meta_batch=25, tasks_per_epoch=5000, validation_tasks=200, learning_rate=1e-3,
        max_epochs=given.theta_epochs if name == "theta" else given.epochs, schedule="constant", patience=0,
        clip_gradient_value=10.0, seed=given.seed + (0 if name == "theta" else 1000), progress=False,
    )  # fmt: skip
    torch.manual_seed(given.seed)
    kind = MAML if name in ("theta", "maml") else OracleOfKinds if name.startswith("oracle") else TSAMAML
    learner = kind(kshot.MLP((40, 40), in_channels=1, image_size=1), **STEPS, **options)
    if kind is TSAMAML:
        stages = Stages(pretrained=theta, solutions=1000)
        resume = (folder / "stages.yaml").exists()
        train_tsa_maml(learner, data, run=folder, stages=stages, training=chosen, resume=resume)
    else:
        if name != "theta":
            weights = checkpoints.load(kshot.Run(theta).best)["learner"]
            learner.load_pretrained(weights) if isinstance(learner, TSAMAML) else learner.load_state_dict(weights)
        train(learner, data, run=folder, resume=folder.exists(), **chosen.plain())
    # of the last epoch, not of the best: every arm has learnt from as many tasks
    learner.load_state_dict(checkpoints.load(kshot.Run(folder).last)["learner"])
    return learner.eval()


def measured(learner: MAML, data: RegressionDataset, given: argparse.Namespace) -> dict[str, Any]:
    """Errors (tasks,) after the steps at test, squared distances (tasks,) to optima, and the groups (tasks,)."""
    shape, numbers = TaskShape(1, 10, 10), np.arange(given.tasks)
    sampler = RegressionSampler(data.test, shape, seed=0)

    @torch.enable_grad()
    def moved(episodes: Episodes) -> Tensor:
        start = {name: weight.detach().requires_grad_() for name, weight in learner.start(episodes).items()}
        end = learner.adapted(episodes, OPTIMUM_STEPS, start=start)
        return as_vectors(end[name].detach() - start[name].detach() for name in start).square().sum(1)

    def over(function: Any) -> np.ndarray:
        parts = for_tasks(learner, function, sampler=sampler, numbers=numbers, normalization=None, at_once=100)
        return torch.cat(parts).numpy()

    errors = evaluate(learner, data.test, ways=1, shots=10, queries=10, tasks=given.tasks, seed=0).values
    with torch.no_grad():
        return {"errors": errors, "distances": over(moved), "groups": over(learner.assigned)}


def covariance(kind: int, x: Tensor, y: Tensor) -> Tensor:
    """The covariance (B, P, Q) of a kind's functions between points x (B, P, 1) and y (B, Q, 1); their means are 0."""
    y = y.mT
    if kind == 0:  # a sin(w x + b): b is uniform over a period
        lag = x - y
        waves = (2 * torch.sinc(2 * lag / torch.pi) - 0.5 * torch.sinc(0.5 * lag / torch.pi)) / 1.5
        return _mean_square(0.1, 5.0) / 2 * waves
    if kind == 1:  # a x + b
        return _mean_square(0, 3) * (1 + x * y)
    # a (x - c)^2 + b: odd moments of c are 0
    moment2, moment4 = _mean_square(0, 3), 3**4 / 5
    squares = (x * y) ** 2 + moment2 * (x**2 + y**2 + 4 * x * y) + moment4
    return _mean_square(0.02, 0.15) * squares + _mean_square(0, 3)


def _mean_square(low: float, high: float) -> float:
    return (high**3 - low**3) / (3 * (high - low))


def best_linear(data: RegressionDataset, kinds: Sequence[int | None], count: int) -> np.ndarray:
    """Squared errors (count,) of the best prediction that is linear in the support values.

    Parameters
    ----------
    data
        Where the test tasks come from.
    kinds
        (count,) by whose covariance each task is predicted; None for that of all kinds.
    count
        Number of tasks.
    """
    episodes = RegressionSampler(data.test, TaskShape(1, 10, 10), seed=0).episodes(np.arange(count))
    x, query = episodes.support.double(), episodes.query.double()
    errors = []
    for task, kind in enumerate(kinds):
        among = range(3) if kind is None else [kind]
        rows = slice(task, task + 1)
        inner, outer = (
            torch.stack([covariance(one, points[rows], x[rows]) for one in among]).mean(0) for points in (x, query)
        )
        weights = outer @ torch.linalg.pinv(inner, rtol=1e-10, hermitian=True)
        predicted = weights @ episodes.support_labels[rows].double().reshape(1, -1, 1)
        errors.append((predicted.flatten() - episodes.query_labels[rows].double().flatten()).square().mean())
    return torch.stack(errors).numpy()


def share_interval(errors: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """The 95% interval over tasks of the ratio of two mean errors on the same tasks, by a bootstrap."""
    drawn = np.random.default_rng(0).integers(0, len(errors), (2000, len(errors)))
    low, high = np.percentile(errors[drawn].mean(1) / base[drawn].mean(1), [2.5, 97.5])
    return float(low), float(high)


def rows_of(results: dict[str, dict[str, Any]], kinds: np.ndarray, given: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per arm and kind of function, and one for all tasks."""
    rows = []
    for name, result in results.items():
        agreed = agreement(result["groups"], kinds) if "groups" in result else None
        for kind in [*sorted(set(kinds)), "all"]:
            chosen = np.full(len(kinds), True) if kind == "all" else kinds == kind
            error, base = result["errors"][chosen], results["maml"]["errors"][chosen]
            row: dict[str, Any] = {"seed": given.seed, "arm": name, "kind": kind}
            row |= {"tasks_of_theta": 5000 * given.theta_epochs, "tasks": 5000 * given.epochs}
            for column, values in (("error", error), ("minus_maml", error - base)):
                mean, half = mean_interval(values)
                row |= {column: round(mean, 5), f"{column}_ci95": round(half, 5)}
            low, high = share_interval(error, base)
            row |= {"share_of_maml": round(float(error.mean() / base.mean()), 4)}
            row |= {"share_low95": round(low, 4), "share_high95": round(high, 4)}
            row |= {"squared_distance": "", "test_tasks": int(chosen.sum()), "nmi": "", "ari": ""}
            if agreed is None:
                row |= {"tasks_of_theta": "", "tasks": ""}
            else:
                row |= {"squared_distance": round(float(result["distances"][chosen].mean()), 4)}
                row |= {"nmi": round(agreed.nmi, 4), "ari": round(agreed.ari, 4)}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/tsa-curves"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--theta-epochs", type=int, default=2, help="of 5000 tasks each")
    parser.add_argument("--epochs", type=int, default=3, help="of each arm")
    parser.add_argument("--tasks", type=int, default=1000, help="of the test")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS), help="maml first")
    given = parser.parse_args()
    data = RegressionDataset(FAMILIES["curves"])
    trained("theta", data, Path(), given)
    kinds = RegressionSampler(data.test, TaskShape(1, 10, 10), seed=0).domains(np.arange(given.tasks))
    numbers = [data.test.family.kinds.index(kind) for kind in kinds]
    results: dict[str, dict[str, Any]] = {
        "linear, kind known": {"errors": best_linear(data, numbers, given.tasks)},
        "linear, kind unknown": {"errors": best_linear(data, [None] * given.tasks, given.tasks)},
    }
    for name in given.arms:
        learner = trained(name, data, given.folder / f"seed{given.seed}" / "theta", given)
        results[name] = measured(learner, data, given)
        rows = rows_of(results, kinds, given)
        with (given.folder / f"results-seed{given.seed}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        print(name, rows[-1], flush=True)


if __name__ == "__main__":
    main()
