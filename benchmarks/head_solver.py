"""Logistic regression heads: kshot's batched solver against scikit-learn, one task at a time.

    python benchmarks/head_solver.py --ways 5 --shots 5 --dimension 640

Both solve the same float32 tasks to their default tolerance, in turns, in one process, scikit-learn with lbfgs. The
last lines say how far either is from the optimum, which is scikit-learn's in float64 at tol=1e-12.

Where other processes use the cores too, set OMP_WAIT_POLICY=PASSIVE or --threads 1: a thread that spins while another
has lost its core makes two threads many times slower than one.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from common import describe_machine, interleaved
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from kshot.memory import keep_freed_memory
from kshot.solvers import logistic_regression

C = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--dimension", type=int, default=640)
    parser.add_argument("--tasks", type=int, default=1000, help="solved by kshot a round; scikit-learn solves a tenth")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; scikit-learn has one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    ways = options.ways
    support, labels, query = clustered_tasks(options.tasks, ways, options.shots, options.dimension)
    few = max(1, options.tasks // 10)

    def batched() -> Tensor:
        return logistic_regression(support, labels, ways, c=C).scores(query).softmax(-1)

    def one_by_one() -> np.ndarray:
        return scikit_learn(support[:few], labels[:few], query[:few], tol=1e-4)

    seconds = interleaved({"kshot": batched, "scikit-learn": one_by_one}, options.repeats)
    rates = {"kshot": options.tasks / seconds["kshot"], "scikit-learn": few / seconds["scikit-learn"]}
    print(describe_machine())
    print(f"{ways}-way {options.shots}-shot, {options.dimension}-d, C = {C:g}, {options.tasks} tasks")
    print(f"query accuracy {accuracy(batched(), ways):.3f}")
    for name, rate in rates.items():
        print(f"{name:<14}{rate:10.0f} tasks/s")
    print(f"ratio         {rates['kshot'] / rates['scikit-learn']:10.1f}")
    optimum = scikit_learn(support[:10].double(), labels[:10], query[:10].double(), tol=1e-12)
    for name, probabilities in {"kshot": batched().numpy(), "scikit-learn": one_by_one()}.items():
        print(f"{name:<14}{np.abs(probabilities[:10] - optimum[: len(probabilities)]).max():10.1e} from the optimum")


def clustered_tasks(tasks: int, ways: int, shots: int, dimension: int) -> tuple[Tensor, Tensor, Tensor]:
    """Float32 L2-normalised features: support (B, S, D) with labels (B, S), and 15 queries a class in order of class.

    Non-negative like features after a ReLU, with classes that overlap: about 80% accuracy at 5-way 5-shot 640-d.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(tasks, ways, 1, dimension, generator=generator)

    def sample(count: int) -> Tensor:
        noise = torch.randn(tasks, ways, count, dimension, generator=generator)
        features = (0.5 + 0.22 * centres + noise).relu_()
        return torch.nn.functional.normalize(features, dim=-1).flatten(1, 2)

    labels = torch.arange(ways).repeat_interleave(shots).repeat(tasks, 1)
    return sample(shots), labels, sample(15)


def scikit_learn(support: Tensor, labels: Tensor, query: Tensor, tol: float) -> np.ndarray:
    """Probabilities (B, T, N), one task at a time on one BLAS thread, which is scikit-learn's fastest here."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.stack(
            [
                LogisticRegression(C=C, tol=tol, max_iter=1000).fit(features, classes).predict_proba(queries)
                for features, classes, queries in zip(support.numpy(), labels.numpy(), query.numpy())
            ]
        )


def accuracy(probabilities: Tensor, ways: int) -> float:
    truth = torch.arange(ways).repeat_interleave(probabilities.shape[1] // ways)
    return float((probabilities.argmax(-1) == truth).float().mean())


if __name__ == "__main__":
    main()
