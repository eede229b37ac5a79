"""What the training loop costs beside the network: a whole step against the bare forward, backward and update.

Both sides run the same learner in the same process in turn. The bare side repeats one prepared batch; the loop draws
tasks, gathers and augments images, normalises them, trains, keeps its counts and writes its run folder; only validation
is left out.

    python benchmarks/training.py [--backbone conv4] [--precision bf16] [--steps 40] [--repeats 5]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, interleaved

from kshot.backbones import backbones
from kshot.data.augmentation import augmentation_for, prepare_images
from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.learners import MultiTask
from kshot.memory import keep_freed_memory
from kshot.training import train

SHAPE, META_BATCH = TaskShape(5, 5, 5), 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="conv4")
    parser.add_argument("--precision", default="bf16", choices=["float32", "bf16"])
    parser.add_argument("--steps", type=int, default=40, help="steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(describe_machine())
    keep_freed_memory()
    data = random_photographs()
    seconds = interleaved(
        {"bare": bare_steps(data, options, device), "loop": loop_steps(data, options, device)}, options.repeats
    )
    images = options.steps * META_BATCH * SHAPE.ways * (SHAPE.shots + SHAPE.queries)
    for name, median in seconds.items():
        print(f"{name:5} {images / median:9.0f} images/s")
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


def new_learner(options: argparse.Namespace) -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(backbones[options.backbone](), num_classes=64)


def bare_steps(data: Dataset, options: argparse.Namespace, device: torch.device):
    learner = new_learner(options).to(device).to(memory_format=torch.channels_last)
    learner.precision = options.precision
    optimizer = torch.optim.RAdam(learner.parameters(), 1e-3)
    raw = EpisodeSampler(data.train, SHAPE, seed=0).episodes(np.arange(META_BATCH), device)
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

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(
                learner,
                data,
                meta_batch=META_BATCH,
                tasks_per_epoch=options.steps * META_BATCH,
                max_epochs=1,
                train_on="train+val",
                schedule="constant",
                patience=0,
                precision=options.precision,
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
