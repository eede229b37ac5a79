"""What the training loop costs beside the network: an epoch against as many bare steps.

Both sides run the same learner in the same process in turn. A bare step sets gradients to zero, goes forward and
backward and updates the weights, on one prepared batch again and again. The loop draws tasks, gathers, augments and
normalises images, does the same, keeps its counts and writes its run folder: all of `kshot.train` but validation.
Seconds are those of the processor, all threads together, which other programs on the machine change little.

    python benchmarks/training.py [--tasks 5-way] [--backbone conv4] [--precision bf16] [--steps 100] [--repeats 5]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, interleaved

from kshot.backbones import backbones
from kshot.data.augmentation import augmentation_for, prepare_images
from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.learners import MultiTask, ProtoNet
from kshot.learners.base import FeatureLearner
from kshot.memory import keep_freed_memory
from kshot.training import train

TASKS = {  # of a step: those of W21, and those of the recipes for CPUs
    "5-way": (TaskShape(5, 5, 5), 6),
    "64-way": (TaskShape(64, 1, 1), 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="conv4")
    parser.add_argument("--precision", default="bf16", choices=["float32", "bf16"])
    parser.add_argument("--tasks", default="5-way", choices=TASKS)
    parser.add_argument("--learner", default="mtl", choices=["mtl", "protonet"])
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=100, help="steps of one epoch")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(describe_machine())
    keep_freed_memory()
    data = random_photographs()
    seconds = interleaved(
        {"bare": bare_steps(data, options, device), "loop": loop_steps(data, options, device)},
        options.repeats,
        clock=time.process_time if device.type == "cpu" else time.perf_counter,
    )
    shape, meta_batch = TASKS[options.tasks]
    images = meta_batch * shape.ways * (shape.shots + shape.queries)
    print(f"{options.learner}, {meta_batch} x {shape}: {images} images per step, {options.steps} steps")
    for name, median in seconds.items():
        print(f"{name:5} {options.steps * images / median:9.0f} images/s")
    print(f"the loop takes {seconds['loop'] / seconds['bare']:.3f} times the bare steps")


def random_photographs() -> Dataset:
    """64 classes of 600 images of 32x32 pixels in each split: the size of CIFAR-FS, whose content costs no time."""
    images = np.random.default_rng(0).integers(0, 256, (64 * 600, 32, 32, 3), np.uint8)
    names = tuple(str(number) for number in range(64))
    normalization = Normalization((0.5,) * 3, (0.25,) * 3, "photo")
    splits = {
        name: Split(
            name=name,
            dataset="random",
            images=images,
            counts=np.full(64, 600),
            class_names=names,
            domains=names,
            normalization=normalization,
        )
        for name in ("train", "val", "test", "train+val")
    }
    return Dataset(
        "random", train=splits["train"], val=splits["val"], test=splits["test"], train_val=splits["train+val"]
    )


def new_learner(options: argparse.Namespace) -> FeatureLearner:
    torch.manual_seed(0)
    backbone = backbones[options.backbone]()
    return MultiTask(backbone, num_classes=64) if options.learner == "mtl" else ProtoNet(backbone)


def bare_steps(data: Dataset, options: argparse.Namespace, device: torch.device):
    learner = new_learner(options).to(device)
    if options.channels_last:
        learner.to(memory_format=torch.channels_last)
    learner.precision = options.precision
    if options.compile:
        learner.backbone.compile()
    optimizer = torch.optim.RAdam(learner.parameters(), 1e-3)
    shape, meta_batch = TASKS[options.tasks]
    raw = EpisodeSampler(data.train, shape, seed=0).episodes(np.arange(meta_batch), device)
    normalization = data.train.normalization
    episodes = prepare_images(raw, normalization, augmentation=augmentation_for(normalization, 32))

    def run() -> None:
        for _ in range(options.steps):
            optimizer.zero_grad()
            learner.accumulate_gradients(episodes)
            optimizer.step()
        synchronize(device)

    return run


def loop_steps(data: Dataset, options: argparse.Namespace, device: torch.device):
    """An epoch of so many steps by `train`; with nothing held out there is no validation."""
    learner = new_learner(options)
    shape, meta_batch = TASKS[options.tasks]

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(
                learner,
                data,
                ways=shape.ways,
                shots=shape.shots,
                queries=shape.queries,
                meta_batch=meta_batch,
                tasks_per_epoch=options.steps * meta_batch,
                max_epochs=1,
                train_on="train+val",
                schedule="constant",
                patience=0,
                precision=options.precision,
                channels_last=options.channels_last,
                compile=options.compile,
                device=str(device),
                run=Path(folder) / "run",
                progress=False,
            )
        synchronize(device)

    return run


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
