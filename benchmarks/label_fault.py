"""What the merged labels in the release of Wang et al. (2021) cost: MTL with and without them, same seeds, paired.

    python benchmarks/label_fault.py --data cifar-fs --epochs 10 --seeds 0 1

The release renames a task's labels to 0..N-1 in place, one class after the other. A class whose global number is small
can be renamed twice, and is then one with another class of its task: of the 5-way tasks on 64 classes 15 in 100 hold
such a pair. Both sides here see the same tasks, the same augmentation and the same initial weights.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import describe_machine
from torch import Tensor

import kshot
from kshot.data.episodes import Episodes
from kshot.evaluation.results import compare
from kshot.intervals import mean_interval
from kshot.learners import MultiTask, learners


@learners.register("mtl-with-label-fault")
class MultiTaskWithLabelFault(MultiTask):
    """MTL whose training labels went through the renaming of the release."""

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The scores of MTL, and labels some of which are merged."""
        scores, labels = super().training_scores(episodes)
        return scores, renamed_in_place(episodes.classes.gather(1, labels), episodes.classes)


def renamed_in_place(labels: Tensor, classes: Tensor) -> Tensor:
    """Labels (B, T) renamed from classes (B, N) to positions one class after the other, as the release does."""
    renamed = labels.clone()
    for position in range(classes.shape[1]):
        renamed[renamed == classes[:, position, None]] = position
    return renamed


def faulty_share(num_classes: int, ways: int, tasks: int = 100_000) -> tuple[float, float]:
    """Shares of tasks and of labels that the renaming gets wrong, by simulation."""
    generator = np.random.default_rng(0)
    drawn = generator.random((tasks, num_classes)).argsort(1)[:, :ways]
    classes = torch.from_numpy(drawn)
    wrong = renamed_in_place(classes, classes) != torch.arange(ways)
    return wrong.any(1).double().mean().item(), wrong.double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar-fs")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tasks-per-epoch", type=int, default=1600)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", choices=["float32", "bf16"], default="bf16")
    arguments = parser.parse_args()

    data = kshot.load(arguments.data)
    channels, size, _ = data.train.image_shape
    tasks, labels = faulty_share(data.train.num_classes, ways=5)
    print(describe_machine())
    print(f"{100 * tasks:.1f} % of tasks and {100 * labels:.1f} % of labels are wrong, by simulation")
    differences: dict[int, list[float]] = {1: [], 5: []}
    for seed in arguments.seeds:
        results = {}
        for cls in (MultiTask, MultiTaskWithLabelFault):
            torch.manual_seed(seed)
            backbone = kshot.Conv4(arguments.width, in_channels=channels, image_size=size)
            learner = cls(backbone, num_classes=data.train.num_classes)
            started = time.perf_counter()
            kshot.train(
                learner,
                data,
                max_epochs=arguments.epochs,
                tasks_per_epoch=arguments.tasks_per_epoch,
                learning_rate=arguments.learning_rate,
                schedule="cosine",
                patience=0,
                precision=arguments.precision,
                seed=seed,
            )
            minutes = (time.perf_counter() - started) / 60
            for shots in differences:
                results[cls, shots] = kshot.evaluate(learner, data.test, shots=shots, tasks=arguments.tasks)
                print(f"training seed {seed}, {minutes:.1f} min, {results[cls, shots]}")
        for shots, of_seeds in differences.items():
            paired = compare(results[MultiTask, shots], results[MultiTaskWithLabelFault, shots])
            of_seeds.append(paired.mean)
            print(
                f"training seed {seed}, {shots}-shot, correct minus faulty: {100 * paired.mean:+.2f} ± "
                f"{100 * paired.ci95:.2f} points (interval over tasks)"
            )
    if len(arguments.seeds) > 1:
        for shots, of_seeds in differences.items():
            values = 100 * np.asarray(of_seeds)
            mean, ci95 = mean_interval(values)
            print(f"{shots}-shot, over {len(values)} trainings: {mean:+.2f} ± {ci95:.2f} points")


if __name__ == "__main__":
    main()
