"""Closed-form heads: kshot's SVM against qpth, and its ridge regression against a bare Cholesky factorisation.

    pip install qpth
    python benchmarks/closed_form.py --ways 5 --shots 1 5 15 --dimension 640

Each side solves the same float32 tasks, 8 as in a training step of MetaOptNet, and takes the gradient of the features,
in turns, in one process. qpth gets the dual as MetaOptNet's release writes it, 1 on the diagonal and 15 iterations; it
runs on one thread, since its batched LU fails on two. A bare Cholesky is the dual ridge regression in four lines,
differentiated by autograd. The distances are those of the weights from kshot's in float64, relative to the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import describe_machine, interleaved
from head_solver import clustered_tasks
from torch import Tensor

from kshot.memory import keep_freed_memory
from kshot.solvers import ridge, svm

C, L2, QPTH_ITERATIONS = 0.1, 50.0, 15
Head = Callable[[Tensor, Tensor, int], Tensor]  # support (B, S, D), labels (B, S), ways N -> weight (B, N, D)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 15])
    parser.add_argument("--dimension", type=int, default=640)
    parser.add_argument("--length", type=float, default=10.0, help="of the features")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20, help="rounds; medians are printed")
    parser.add_argument("--threads", type=int, default=1, help="of torch; with several, qpth is left out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(describe_machine())
    for shots in options.shots:
        support, labels, _ = clustered_tasks(options.tasks, options.ways, shots, options.dimension)
        print(f"\n{options.tasks} tasks, {options.ways}-way {shots}-shot, {options.dimension}-d, forward and backward")
        for ours, peer in ((kshot_svm, qpth_svm), (kshot_ridge, bare_ridge)):
            if peer is not qpth_svm or options.threads == 1:
                contest(ours, peer, options.length * support, labels, options.ways, options.repeats)


def contest(ours: Head, peer: Head, support: Tensor, labels: Tensor, ways: int, repeats: int) -> None:
    """Print the milliseconds of both, their ratio, and how far their weights are from the exact ones."""
    support.requires_grad_()
    exact = ours(support.double(), labels, ways)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0))

    def forward_and_backward(head: Head) -> None:
        support.grad = None
        (head(support, labels, ways) * direction).sum().backward()

    names = {head: head.__name__.replace("_", " ") for head in (ours, peer)}
    seconds = interleaved({names[head]: lambda h=head: forward_and_backward(h) for head in names}, repeats)
    for head, name in names.items():
        distance = (head(support, labels, ways) - exact).abs().max() / exact.abs().max()
        print(f"{name:<14}{1e3 * seconds[name]:9.2f} ms   weights within {distance:.0e}")
    print(f"{'ratio':<14}{seconds[names[peer]] / seconds[names[ours]]:9.2f}")


def kshot_svm(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    return svm(support, labels, ways, c=C).weight


def qpth_svm(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The variables of an image stand side by side: kernel (x) I, and one equation an image."""
    from qpth.qp import QPFunction

    tasks, images, dtype = len(support), support.shape[1], support.dtype
    kernel = support @ support.mT
    identity = torch.eye(ways, dtype=dtype)
    hessian = torch.einsum("bij,kl->bikjl", kernel, identity).reshape(tasks, images * ways, images * ways)
    hessian = hessian + torch.eye(images * ways, dtype=dtype)
    members = torch.nn.functional.one_hot(labels, ways).to(dtype).flatten(1)
    bounds = torch.eye(images * ways, dtype=dtype).expand(tasks, -1, -1)
    sums = torch.kron(torch.eye(images, dtype=dtype), torch.ones(1, ways, dtype=dtype)).expand(tasks, -1, -1)
    solve = QPFunction(verbose=False, maxIter=QPTH_ITERATIONS)
    coefficients = solve(hessian, -members, bounds, C * members, sums, torch.zeros(tasks, images, dtype=dtype))
    return coefficients.view(tasks, images, ways).mT @ support


def kshot_ridge(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    return ridge(support, labels, ways, l2=L2).weight


def bare_ridge(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    targets = torch.nn.functional.one_hot(labels, ways).to(support.dtype)
    system = support @ support.mT + L2 * torch.eye(support.shape[1])
    coefficients = torch.cholesky_solve(targets, torch.linalg.cholesky(system))
    return coefficients.mT @ support


if __name__ == "__main__":
    main()
