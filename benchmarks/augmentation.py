"""Random crop, colour jitter and flip: whole batches as tensors against PIL one image at a time.

    python benchmarks/augmentation.py

Both sides start from the same uint8 images, draw parameters of their own for each image and end with float images in
0..1, channels first. PIL does what torchvision's RandomCrop, ColorJitter, RandomHorizontalFlip and ToTensor call.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from common import describe_machine, interleaved
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from kshot.data.augmentation import PhotoAugmentation
from kshot.memory import keep_freed_memory

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def augment_by_pil(image: NDArray[np.uint8], padding: int) -> torch.Tensor:
    size = image.shape[0]
    padded = ImageOps.expand(Image.fromarray(image), padding, 0)
    top, left = (random.randint(0, 2 * padding) for _ in range(2))
    photograph = padded.crop((left, top, left + size, top + size))
    for enhancer in random.sample(ENHANCERS, 3):
        photograph = enhancer(photograph).enhance(random.uniform(0.6, 1.4))
    if random.random() < 0.5:
        photograph = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(photograph)).permute(2, 0, 1).float().div_(255)


def compare(size: int, padding: int, tasks: int, per_task: int, repeats: int) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (tasks, per_task, size, size, 3), np.uint8)
    keys = generator.integers(0, 2**64, tasks, np.uint64)
    batch, one_by_one = torch.from_numpy(images), images.reshape(-1, size, size, 3)
    augmentation = PhotoAugmentation(padding)
    seconds = interleaved(
        {
            "tensors": lambda: augmentation(batch, keys),
            "PIL": lambda: torch.stack([augment_by_pil(image, padding) for image in one_by_one]),
        },
        repeats,
    )
    rates = {name: len(one_by_one) / median for name, median in seconds.items()}
    print(
        f"{size:3d} px, batches of {len(one_by_one):3d}: tensors {rates['tensors']:8,.0f} images/s, "
        f"PIL {rates['PIL']:7,.0f} images/s, ratio {rates['tensors'] / rates['PIL']:.1f}"
    )


def main() -> None:
    print(describe_machine())
    keep_freed_memory()  # as training does before its first step
    for tasks, per_task in ((1, 64), (6, 50)):
        compare(32, 4, tasks, per_task, repeats=30)
    for tasks, per_task in ((1, 64), (6, 50)):
        compare(84, 8, tasks, per_task, repeats=10)


if __name__ == "__main__":
    main()
