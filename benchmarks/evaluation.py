"""Evaluation end to end: kshot against features and scikit-learn task by task, on the same tasks.

    python benchmarks/evaluation.py --data cifar-fs --tasks 2000 --baseline-tasks 20

kshot computes the feature of each test image once and solves all tasks as a batch. The other side does what most
releases do: each task's images go through the network, and scikit-learn fits a head to their features. It takes time in
proportion to its tasks, so it runs on `baseline-tasks` of them and is scaled up; both sides are repeated in turns.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import describe_machine
from sklearn.linear_model import LogisticRegression

import kshot
from kshot.data.augmentation import normalize
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.evaluation.protocol import evaluate


def task_by_task(learner, split, shape: TaskShape, tasks: int) -> np.ndarray:
    sampler, accuracies = EpisodeSampler(split, shape, seed=0), []
    learner.eval()
    for number in range(tasks):
        episodes = sampler.episodes(np.asarray([number]))
        with torch.no_grad():
            support, query = (
                learner.features(normalize(images[0], split.normalization)).numpy()
                for images in (episodes.support, episodes.query)
            )
        head = LogisticRegression(C=3.0, max_iter=1000).fit(support, episodes.support_labels[0])
        accuracies.append((head.predict(query) == episodes.query_labels[0].numpy()).mean())
    return np.asarray(accuracies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glyphs", help="a prepared dataset; its test split is used")
    parser.add_argument("--backbone", choices=["resnet12", "conv4"], default="resnet12")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--baseline-tasks", type=int, default=20, help="tasks of one repeat of the other side")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    split = kshot.load(arguments.data).test
    channels, size, _ = split.image_shape
    torch.manual_seed(0)
    backbone = kshot.backbones.backbones[arguments.backbone](in_channels=channels, image_size=size)
    learner = kshot.MultiTask(backbone.to(memory_format=torch.channels_last), num_classes=64)
    shape = TaskShape(5, arguments.shots, arguments.queries)

    ours, theirs = [], []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        result = evaluate(
            learner, split, ways=5, shots=arguments.shots, queries=arguments.queries, tasks=arguments.tasks
        )
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        reference = task_by_task(learner, split, shape, arguments.baseline_tasks)
        theirs.append((time.perf_counter() - start) / arguments.baseline_tasks * arguments.tasks)
    own, other = np.median(ours), np.median(theirs)
    print(describe_machine())
    print(
        f"{shape}, {arguments.tasks} tasks of {split.dataset}/test, {arguments.backbone}, {arguments.repeats} repeats"
    )
    print(f"kshot, all tasks:                         {own:9.1f} s")
    print(f"task by task, scaled from {arguments.baseline_tasks:4d} tasks:      {other:9.1f} s")
    print(f"ratio of medians:                         {other / own:9.1f}")
    difference = np.abs(result.accuracies[: len(reference)] - reference).max()
    print(f"largest difference of a task's accuracy:  {difference:9.4f}")


if __name__ == "__main__":
    main()
