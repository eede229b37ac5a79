"""What sharing the tasks of each step among processes costs: processor and clock time of 1 and of 2 processes.

    OMP_NUM_THREADS=1 python benchmarks/processes.py --backbone conv4 --steps 30

Both make the same steps on the same tasks (MTL, 32 px, 5 ways, 5 shots and 5 queries, 4 tasks per step). The efficiency
in clock time is the time of one process over twice that of two, and wants as many free cores as processes. That in
processor time is the time of one over the time of both together: what is lost to agreeing, and not to waiting.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import describe_machine

from kshot.data import Dataset
from kshot.learners.create import create_learner
from kshot.training import train

CLASSES, IMAGES, FIRST_STEPS = 20, 20, 4  # the first steps are not counted


def measure(backbone: str, steps: int, out: Path) -> None:
    """Train in this process, with others if there are any, and write the seconds of a step."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3 * CLASSES * IMAGES, 32, 32, 3), np.uint8)
    data = Dataset.from_arrays(images, np.repeat(np.arange(3 * CLASSES), IMAGES))
    learner = create_learner("mtl", data, backbone=backbone)
    times, step = [], learner.accumulate_gradients

    def timed(episodes):
        times.append((time.perf_counter(), time.process_time()))
        return step(episodes)

    learner.accumulate_gradients = timed
    options = {"validation_tasks": 2, "max_epochs": 1, "meta_batch": 4, "progress": False, "patience": 0}
    train(learner, data, tasks_per_epoch=4 * (steps + FIRST_STEPS), **options)
    between = np.diff(np.array(times), axis=0)[FIRST_STEPS - 1 :]
    out.write_text(json.dumps({"clock": float(np.median(between[:, 0])), "processor": float(between[:, 1].mean())}))


def run(count: int, backbone: str, steps: int) -> dict[str, float]:
    """Clock seconds of a step, and processor seconds of all processes together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(count):
            torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
            words = [sys.executable, __file__, "--backbone", backbone, "--steps", str(steps)]
            words += ["--out", str(Path(folder) / str(rank))]
            children.append(subprocess.Popen(words, env=os.environ | torchrun | {"RANK": str(rank)}))
        if any(child.wait() for child in children):
            raise SystemExit("a process failed")
        found = [json.loads((Path(folder) / str(rank)).read_text()) for rank in range(count)]
    return {"clock": max(one["clock"] for one in found), "processor": sum(one["processor"] for one in found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="conv4")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.out is not None:
        measure(options.backbone, options.steps, options.out)
        return
    rounds = [[run(count, options.backbone, options.steps) for count in (1, 2)] for _ in range(options.repeats)]
    print(describe_machine())
    for kind in ("processor", "clock"):
        one, two = (statistics.median(each[place][kind] for each in rounds) for place in (0, 1))
        efficiency = statistics.median(
            each[0][kind] / ((2 if kind == "clock" else 1) * each[1][kind]) for each in rounds
        )
        print(
            f"{kind}: 1 process {1000 * one:.0f} ms per step, 2 processes {1000 * two:.0f}, efficiency {efficiency:.2f}"
        )


if __name__ == "__main__":
    main()
