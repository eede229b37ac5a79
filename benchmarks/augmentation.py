"""Random crop, colour jitter and flip: whole batches as tensors against PIL one image at a time.

    python benchmarks/augmentation.py [--memory]

Both sides start from the same uint8 images, draw parameters of their own for each image and end with float images in
0..1, channels first. PIL does what torchvision's RandomCrop, ColorJitter, RandomHorizontalFlip and ToTensor call. The
last line is what a call of the tensors costs that has next to nothing to do, on two images of 8 pixels. Seconds are
those of the processor; memory is the peak of a process of its own for each side, above what it held before.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from common import added_memory, describe_machine, interleaved
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from kshot.data.augmentation import PhotoAugmentation
from kshot.memory import keep_freed_memory

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def augment_by_pil(image: NDArray[np.uint8], padding: int) -> Tensor:
    size = image.shape[0]
    padded = ImageOps.expand(Image.fromarray(image), padding, 0)
    top, left = (random.randint(0, 2 * padding) for _ in range(2))
    photograph = padded.crop((left, top, left + size, top + size))
    for enhancer in random.sample(ENHANCERS, 3):
        photograph = enhancer(photograph).enhance(random.uniform(0.6, 1.4))
    if random.random() < 0.5:
        photograph = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(photograph)).permute(2, 0, 1).float().div_(255)


def sides(size: int, padding: int, tasks: int, per_task: int) -> dict[str, Callable[[], Tensor]]:
    """Each side as a function that augments the same images of so many tasks."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (tasks, per_task, size, size, 3), np.uint8)
    keys = generator.integers(0, 2**64, tasks, np.uint64)
    batch, one_by_one = torch.from_numpy(images), images.reshape(-1, size, size, 3)
    augmentation = PhotoAugmentation(padding)
    return {
        "tensors": lambda: augmentation(batch, keys),
        "PIL": lambda: torch.stack([augment_by_pil(image, padding) for image in one_by_one]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="measure peak memory, too")
    options = parser.parse_args()
    print(describe_machine())
    keep_freed_memory()  # as training does before its first step
    for size, padding, repeats in ((32, 4, 30), (84, 8, 10)):
        for tasks, per_task in ((1, 64), (6, 50)):
            images, arguments = tasks * per_task, (size, padding, tasks, per_task)
            seconds = interleaved(sides(*arguments), repeats, clock=time.process_time)
            rates = {name: images / median for name, median in seconds.items()}
            print(
                f"{size:3d} px, batches of {images:3d}: tensors {rates['tensors']:8,.0f} images/s, "
                f"PIL {rates['PIL']:7,.0f} images/s, ratio {rates['tensors'] / rates['PIL']:.1f}"
            )
            if options.memory:
                peaks = {name: added_memory(_augment_once, name, *arguments) for name in seconds}
                print("        peak memory: " + ", ".join(f"{name} {peak:.1f} MiB" for name, peak in peaks.items()))
    seconds = interleaved(sides(8, 1, 1, 2), 200, clock=time.process_time)
    print(f"a call for two images of 8 px: {1e6 * seconds['tensors']:.0f} microseconds")


def _augment_once(name: str, *arguments: int) -> Callable[[], Tensor]:
    return sides(*arguments)[name]


if __name__ == "__main__":
    main()
