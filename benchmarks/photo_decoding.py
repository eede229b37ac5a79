"""Photographs of 12 megapixels from files to pixels, by kshot and by a plain loop over Pillow: a ratio of times.

    python benchmarks/photo_decoding.py [--photographs 12] [--rounds 5] [--megapixels 12]

Both give images of 224 pixels: the shorter side to 256, the centre cropped. The rounds of the two alternate, so that
what else runs on the machine slows both; the median of the ratios is printed with its range.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_image

from kshot.data.images import InputForm, read_each, shown_at

FORM = InputForm.from_pixels(224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megapixels", type=float, default=12)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = made(Path(folder), options.photographs, options.megapixels)
        size = np.mean([path.stat().st_size for path in paths]) / 1e6
        print(f"{len(paths)} JPEGs of {options.megapixels:g} megapixels, {size:.1f} MB each")
        whole = [shown_at(Image.open(path), FORM.image_size, resize=FORM.resize) for path in paths[:4]]
        difference = np.abs(np.stack(read_each(paths[:4], FORM)).astype(int) - np.stack(whole)).mean()
        print(f"pixels differ by {difference:.2f} of 255 from those of whole photographs, on average")
        ratios = []
        for number in range(options.rounds):
            slow, fast = seconds(plain, paths), seconds(lambda some: read_each(some, FORM), paths)
            ratios.append(slow / fast)
            each = f"{1000 * slow / len(paths):.0f} and {1000 * fast / len(paths):.0f} ms per photograph"
            print(f"round {number + 1}: plain loop and kshot {each}, ratio {ratios[-1]:.2f}")
        print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def plain(paths: Sequence[Path]) -> list[np.ndarray]:
    """What ten lines with Pillow do."""
    images = []
    for path in paths:
        image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        share = 256 / min(image.size)
        image = image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        images.append(np.asarray(image.crop((left, top, left + 224, top + 224))))
    return images


def seconds(read: Callable[[Sequence[Path]], object], paths: Sequence[Path]) -> float:
    start = time.perf_counter()
    read(paths)
    return time.perf_counter() - start


def made(folder: Path, count: int, megapixels: float) -> list[Path]:
    """Photographs as large as a phone's: parts of scikit-learn's two, enlarged, with the grain of a sensor."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    size = width, round(width * 3 / 4)
    generator = np.random.default_rng(0)
    scenes = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    grain = generator.normal(0, 6, (size[1], size[0], 1))
    paths = []
    for number in range(count):
        left, top = int(generator.integers(100)), int(generator.integers(60))
        part = scenes[number % 2].crop((left, top, left + 520, top + 360)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(part.filter(ImageFilter.SHARPEN), np.float32) + np.roll(grain, number * 31, 1)
        paths.append(folder / f"IMG_{number:04d}.JPG")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    main()
