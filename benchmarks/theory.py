"""Kernels: kshot's closed form and empirical NTK against neural-tangents, in turns.

    python -m venv peer && peer/bin/pip install 'jax<=0.5' neural-tangents
    python benchmarks/theory.py --peer peer/bin/python

neural-tangents needs jax <= 0.5, which goes into an environment of its own: a process there waits for its turn,
computes, and answers with the seconds that it took, so that both sides see the same moods of the machine. Both have
warmed up. The closed form is in float64 on both sides and jitted on the other. The empirical NTK is in float32, of a
network with random weights, by neural-tangents' default implementation (products of Jacobians) and by the fastest that
it has for such networks (structured derivatives), both jitted. Both sides run on --threads threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import describe_machine

from kshot.memory import keep_freed_memory
from kshot.theory import ReLUNetwork, empirical_kernels, kernels

_WORKER = Path(__file__).parent / "neural_tangents_worker.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="python with neural-tangents")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--dimension", type=int, default=10)
    parser.add_argument("--depth", type=int, default=10, help="hidden layers; there is one more layer of weights")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9, help="rounds; medians are printed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    points = np.random.default_rng(0).standard_normal((options.points, options.dimension))
    network = ReLUNetwork(options.dimension, width=options.width, depth=options.depth + 1, dtype=torch.float32)
    exact, single = torch.from_numpy(points), torch.from_numpy(points).float()
    ours: dict[str, Callable[[], object]] = {
        "closed form": lambda: kernels(exact, depth=options.depth + 1),
        "empirical": lambda: empirical_kernels(network, single),
    }
    with Peer(options) as peer:
        for function in ours.values():
            function()
        seconds: dict[str, list[float]] = {}
        for _ in range(options.repeats):
            for name, function in ours.items():
                seconds.setdefault(f"kshot {name}", []).append(timed(function))
            for name in peer.tasks:
                seconds.setdefault(f"neural-tangents {name}", []).append(peer.ask(name)["seconds"])
        difference = np.abs(
            np.asarray(peer.ask("values")["ntk"]) - kernels(exact[:5], depth=options.depth + 1).ntk.numpy()
        )
    print(describe_machine())
    print(f"{options.points} points, {options.depth} hidden layers, width {options.width}, {options.threads} threads")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        own = medians["kshot empirical" if "empirical" in name else "kshot closed form"]
        print(f"{name:44}{1000 * median:9.1f} ms{median / own:8.2f} times kshot's")
    print(f"largest difference of the closed-form NTK on 5 points {difference.max():.1e}")


class Peer:
    """A process with neural-tangents that computes when it is asked."""

    tasks = ("closed form", "empirical", "empirical, structured derivatives")

    def __init__(self, options: argparse.Namespace) -> None:
        shape = [str(number) for number in (options.points, options.dimension, options.depth, options.width)]
        several = str(options.threads > 1).lower()
        threads = f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={options.threads}"
        environment = os.environ | {
            "XLA_FLAGS": threads,
            "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": str(options.threads),
        }
        self._process = subprocess.Popen(
            [options.peer, str(_WORKER), *shape],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, task: str) -> dict:
        """The answer to one of `tasks`, or to "values"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("the peer's process ended; does its environment hold neural-tangents and jax <= 0.5?")
        return json.loads(answer)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
