"""What an image costs in training: a step of each learner on the same tasks through the same network.

    OMP_NUM_THREADS=1 python benchmarks/learner_step.py --backbone conv4 --learners mtl metaoptnet-svm metaoptnet-ridge

All learners take gradients on one prepared batch in turns, in one process: forward, backward and update, without
reading or augmenting images. MTL uses all images of a task alike; those that learn a task learn it from the support
and are judged by the query images. A ratio says how many times the first learner's time another one takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import describe_machine, interleaved
from tabulate import tabulate

from kshot.backbones import backbones
from kshot.data.episodes import Episodes
from kshot.learners import learners
from kshot.memory import keep_freed_memory

CLASSES = 64
DEFAULT = ("mtl", "metaoptnet-svm", "metaoptnet-ridge")
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mtl": ("mtl", {"num_classes": CLASSES}),
    "supervised": ("supervised", {"num_classes": CLASSES}),
    "protonet": ("protonet", {}),
    "metaoptnet-svm": ("metaoptnet", {"head": "svm"}),
    "metaoptnet-ridge": ("metaoptnet", {"head": "ridge"}),
    "anil": ("anil", {}),
    "fomaml": ("maml", {"first_order": True}),
    "maml": ("maml", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet12")
    parser.add_argument("--pooling", default="mean", help="none is what MetaOptNet's own ResNet-12 has")
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--meta-batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="rounds; medians are printed")
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=DEFAULT)
    options = parser.parse_args()
    print(describe_machine())
    keep_freed_memory()
    tasks = random_tasks(options)
    seconds = interleaved({name: step_of(name, tasks, options) for name in options.learners}, options.repeats)
    images = tasks.tasks * tasks.images().shape[1]
    print(f"{options.backbone}, {options.pixels} px, {tasks.tasks} tasks of 5 ways, {images} images a step")
    first = seconds[options.learners[0]]
    rows = [(name, f"{1e3 * median / images:.3f}", f"{median / first:.2f}") for name, median in seconds.items()]
    print(tabulate(rows, ["learner", "ms an image", "ratio"], tablefmt="github", disable_numparse=True))


def random_tasks(options: argparse.Namespace) -> Episodes:
    """Tasks whose images are noise of a mean for each class, so that solvers see classes they can tell apart."""
    generator = torch.Generator().manual_seed(0)
    side, ways = options.pixels, 5
    means = torch.randn(CLASSES, side, side, 3, generator=generator)
    classes = torch.stack([torch.randperm(CLASSES, generator=generator)[:ways] for _ in range(options.meta_batch)])

    keys = np.arange(options.meta_batch, dtype=np.uint64)

    def images_and_labels(each: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(ways).repeat_interleave(each).expand(options.meta_batch, -1)
        chosen = means[classes.gather(1, labels)]
        return (chosen + torch.randn(chosen.shape, generator=generator)).movedim(-1, -3), labels

    return Episodes(*images_and_labels(options.shots), *images_and_labels(options.queries), classes, keys)


def step_of(name: str, tasks: Episodes, options: argparse.Namespace) -> Callable[[], None]:
    """A training step of a new learner on these tasks."""
    torch.manual_seed(0)
    kind, settings = LEARNERS[name]
    backbone = backbones[options.backbone](pooling=options.pooling, image_size=options.pixels)
    learner = learners[kind](backbone, **settings).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(learner.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        learner.accumulate_gradients(tasks)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
