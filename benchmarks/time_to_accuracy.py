"""Time to accuracy on CIFAR-FS with Conv4-64: kshot's MTL against a plain PyTorch script that trains the same network.

    python benchmarks/time_to_accuracy.py --root DATA [--minutes 2] [--lengths 240000 960000] [--out FOLDER]

Each side trains once for each of the lengths, in images, over which its learning rate falls; the two take turns,
`--minutes` each: kshot by `kshot.train` with a time limit, resumed for its next turn, the plain script by its own loop.
After each turn, outside the clock, both are measured on the same 5-way 5-shot tasks in the same way, logistic
regression on unit features. The clock counts what the side does in its turn, kshot's start and validation included:
seconds on the wall, and of the processor, workers included. A side that has reached the last target begins no longer
training; its time to an accuracy is that of its training that was there first. What was measured is kept in --out; a
second call goes on, but an interrupted turn of kshot's is not counted: repeat such a comparison from the start.

Accuracies are those of the test classes, which 70, 75 and 77 % refer to; no setting is chosen by them here.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import describe_machine
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import kshot
from kshot.data.split import Split
from kshot.learners import MultiTask
from kshot.recipes import load as load_recipe

RECIPE, TARGETS = "mtl-cifar-fs-conv4-cpu", (0.70, 0.75, 0.77)
SIDES = ("kshot", "plain")


# ---- The plain script: the supervised baseline as EasyFSL's classical training has it, by PyTorch and PIL alone. ----
class Photographs(Dataset):
    """Training images, augmented one by one, as torchvision's transforms do it."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], mean: Any, std: Any) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        size, padding = self.images.shape[1], 4
        padded = ImageOps.expand(Image.fromarray(self.images[row]), padding, 0)
        top, left = (random.randint(0, 2 * padding) for _ in range(2))
        image = padded.crop((left, top, left + size, top + size))
        for enhancer in random.sample((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), 3):
            image = enhancer(image).enhance(random.uniform(0.6, 1.4))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, int(self.labels[row])


class PlainTraining:
    """Conv4-64 and a linear classifier, cross-entropy, SGD at 0.1 with two steps down, batches of 128, two workers."""

    def __init__(self, data: Split, file: Path, *, images: int, workers: int = 2) -> None:
        torch.manual_seed(0)
        blocks = [
            layer
            for channels in (3, 64, 64, 64)
            for layer in (nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
        ]
        self.network = nn.Sequential(*blocks, nn.Flatten())
        self.model = nn.Sequential(self.network, nn.LazyLinear(data.num_classes))
        self.model(torch.zeros(2, 3, *data.images.shape[1:3]))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        steps = images // 128
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [int(0.75 * steps), int(0.9 * steps)])
        photographs = Photographs(np.array(data.images), data.labels, data.normalization.mean, data.normalization.std)
        self.loader = DataLoader(
            photographs, 128, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.batches, self.images, self.last, self.file = self.endless(), 0, 128 * steps, file
        self.parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        if file.exists():
            saved = torch.load(file, weights_only=True)
            self.images = saved.pop("images")
            for name, state in saved.items():
                self.parts[name].load_state_dict(state)

    def endless(self) -> Iterator[list[Tensor]]:
        """Batches of one epoch after the other."""
        while True:
            yield from self.loader

    def train_for(self, seconds: float) -> None:
        """Train for so long, and save."""
        self.model.train()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and self.images < self.last:
            images, labels = next(self.batches)
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            self.schedule.step()
            self.images += len(images)
        states = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({"images": self.images, **states}, self.file)

    def body(self) -> nn.Module:
        """The network as it is now, as a backbone of kshot."""
        return kshot.backbone(self.network.eval(), in_channels=3, image_size=self.loader.dataset.images.shape[1])


# ---- End of the plain script. ----


class KshotTraining:
    """The recipe by `kshot.train`, in turns; validation between epochs, which steers nothing here, is a small one."""

    def __init__(self, data: kshot.Dataset, folder: Path, *, images: int) -> None:
        self.data, self.folder, self.run = data, folder, kshot.Run(folder)
        self.options = load_recipe(RECIPE).options
        shape = self.options["training"]
        self.per_task = shape["ways"] * (shape["shots"] + shape["queries"])
        shape["tasks_per_epoch"] = images // (shape["max_epochs"] * self.per_task)
        self.last = shape["max_epochs"] * shape["tasks_per_epoch"] * self.per_task

    def train_for(self, seconds: float) -> None:
        """Train for so much longer than until now."""
        so_far = self.counters()["seconds"] if self.folder.is_dir() else 0.0
        training = {**self.options["training"], "validation_tasks": 2, "progress": False}
        self.run = kshot.train(
            self.learner(),
            self.data,
            run=self.folder,
            resume=self.folder.is_dir(),
            time_limit=(so_far + seconds) / 60,
            **training,
        )

    def learner(self) -> Any:
        """A new learner of the recipe."""
        options, backbone = dict(self.options["learner"]), dict(self.options["backbone"])
        return kshot.create_learner(
            options.pop("name"),
            self.data,
            backbone=backbone.pop("name"),
            backbone_options=backbone,
            ways=self.options["training"]["ways"],
            **options,
        )

    def counters(self) -> dict[str, Any]:
        """How far training is, by its last checkpoint."""
        return torch.load(self.folder / "checkpoints/last.pt", weights_only=True)["counters"]

    @property
    def images(self) -> int:
        """How many images training has seen."""
        shape = self.options["training"]
        counters = self.counters()
        steps = counters["epoch"] * shape["tasks_per_epoch"] // shape["meta_batch"] + counters["step"]
        return steps * shape["meta_batch"] * self.per_task

    def body(self) -> nn.Module:
        """The network as it is now."""
        return self.run.load(checkpoint="last").backbone


def accuracy(body: nn.Module, data: kshot.Dataset, tasks: int) -> dict[str, float]:
    """Of 5-way 5-shot tasks of the test classes, learnt as MTL learns them, with its interval."""
    learner = MultiTask(body, num_classes=data.train.num_classes)
    result = kshot.evaluate(learner, data.test, ways=5, shots=5, tasks=tasks, seed=0)
    return {"accuracy": result.mean, "ci95": result.ci95}


def processor_seconds() -> float:
    """Of this process, its children that have ended, and those at work."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def measured(
    side: str, training: PlainTraining | KshotTraining, minutes: float, data: kshot.Dataset, tasks: int
) -> dict[str, Any]:
    """A row of what one turn came to."""
    wall, processor = time.perf_counter(), processor_seconds()
    training.train_for(60 * minutes)
    spent = {"wall": time.perf_counter() - wall, "processor": processor_seconds() - processor}
    return {
        "side": side,
        "length": training.last,
        "images": training.images,
        **spent,
        **accuracy(training.body(), data, tasks),
    }


def report(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['side']:6} of {row['length']:8,}: {row['images']:8,} images, {row['wall'] / 60:6.1f} min, "
            f"{row['processor']:7.0f} s of the processor: {100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f} %"
        )
    for target in TARGETS:
        reached = [row for row in rows if row["accuracy"] >= target]
        first = {
            side: min((row for row in reached if row["side"] == side), key=lambda row: row["processor"], default=None)
            for side in SIDES
        }
        texts = [
            f"{side} {'not reached' if row is None else '{wall:.0f} s, {processor:.0f} of the processor'.format(**row)}"
            for side, row in first.items()
        ]
        ratio = (
            f"; {first['plain']['processor'] / first['kshot']['processor']:.1f} times" if all(first.values()) else ""
        )
        print(f"to {100 * target:.0f} %: {', '.join(texts)}{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of prepared datasets")
    parser.add_argument("--data", default="cifar-fs")
    parser.add_argument("--minutes", type=float, default=2, help="of one turn")
    parser.add_argument("--lengths", type=int, nargs="+", default=[240_000, 960_000], help="images of each training")
    parser.add_argument("--tasks", type=int, default=600)
    parser.add_argument("--workers", type=int, default=2, help="of the plain script's DataLoader")
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-accuracy"))
    args = parser.parse_args()
    print(describe_machine())
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    data = kshot.load(args.data, args.root)
    for length in sorted(args.lengths):
        best = {side: max((row["accuracy"] for row in rows if row["side"] == side), default=0.0) for side in args.sides}
        trainings: dict[str, PlainTraining | KshotTraining] = {
            "kshot": KshotTraining(data, args.out / f"kshot-{length}", images=length),
            "plain": PlainTraining(data.train, args.out / f"plain-{length}.pt", images=length, workers=args.workers),
        }
        waiting = [side for side in args.sides if best[side] < TARGETS[-1]]
        while waiting:
            for side in list(waiting):
                training = trainings[side]
                before = [row for row in rows if (row["side"], row["length"]) == (side, training.last)]
                if before and before[-1]["images"] == training.last:
                    waiting.remove(side)
                    continue
                row = measured(side, training, args.minutes, data, args.tasks)
                for clock in ("wall", "processor"):
                    row[clock] += before[-1][clock] if before else 0.0
                rows.append(row)
                file.write_text(json.dumps(rows, indent=1))
    report(rows)


if __name__ == "__main__":
    main()
