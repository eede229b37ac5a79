"""Features of photographs by a pretrained network: four ways to run EfficientNet-Lite0 on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/photos.py --repeats 9
    OMP_NUM_THREADS=1 python benchmarks/photos.py --photos new_photos/ --repeats 3

The same batch of random images goes through all of them in turns, in one process; medians are printed, and how far the
features of unit length, and the probabilities of a head with 5 classes, are from those of the network as it stands.
Needs ``pip install kshot[photos]``. With ``--photos``, the files of a folder become features end to end: kshot,
without its cache, against a plain loop that opens, resizes and crops one file after the other for the same network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import describe_machine, interleaved
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from kshot.backbones import EfficientNetLite0
from kshot.photos import PretrainedNetwork, images_at, photo_features
from kshot.photos.fast import by_onnx_runtime, folded_batch_norm
from kshot.solvers import logistic_regression


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="per batch")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; medians are printed")
    parser.add_argument("--photos", type=Path, help="a folder of image files, to be measured end to end")
    parser.add_argument(
        "--processor", action="store_true", help="end to end, count the processor's seconds, as on a busy machine"
    )
    options = parser.parse_args()
    network = EfficientNetLite0(pretrained=True).eval()
    if options.photos is not None:
        clock = time.process_time if options.processor else time.perf_counter
        end_to_end(network, images_at([options.photos]), options.repeats, clock)
        return
    folded = folded_batch_norm(network)
    by_pixel = folded_batch_norm(network).to(memory_format=torch.channels_last)
    images = torch.randn(options.images, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    images_by_pixel = images.contiguous(memory_format=torch.channels_last)
    onnx = by_onnx_runtime(folded)

    def in_bfloat16() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return by_pixel(images_by_pixel).float()

    ways: dict[str, Callable[[], Tensor]] = {
        "eager": lambda: network(images),
        "folded, channels_last": lambda: by_pixel(images_by_pixel),
        "the same in bfloat16": in_bfloat16,
        "ONNX Runtime": lambda: onnx(images),
    }
    with torch.no_grad():
        features = {name: normalize(run()) for name, run in ways.items()}
        seconds = interleaved(ways, options.repeats)
    print(describe_machine())
    for name, taken in seconds.items():
        feature_difference = (features[name] - features["eager"]).abs().max()
        change = (probabilities(features[name]) - probabilities(features["eager"])).abs().max()
        print(
            f"{name:<24}{1000 * taken / options.images:7.1f} ms/image,{seconds['eager'] / taken:5.1f} times eager, "
            f"features within {feature_difference:.0e}, probabilities within {change:.0e}"
        )


@torch.no_grad()
def end_to_end(network: EfficientNetLite0, files: Sequence[Path], repeats: int, clock: Callable[[], float]) -> None:
    """Photographs per second from files to features."""
    fast = PretrainedNetwork("efficientnet-lite0")

    def plain() -> Tensor:
        return torch.cat([fast.finished(network(_by_hand(file))) for file in files])

    ways: dict[str, Callable[[], Tensor]] = {
        "plain loop": plain,
        "kshot": lambda: photo_features(fast, files).features,
    }
    difference = (ways["kshot"]() - plain()).abs().max()
    seconds = interleaved(ways, repeats, clock=clock)
    print(describe_machine())
    for name, taken in seconds.items():
        ratio = seconds["plain loop"] / taken
        print(f"{name:<12}{len(files) / taken:7.1f} photographs/s,{ratio:5.1f} times the plain loop")
    print(f"features within {difference:.0e}")


def _by_hand(file: Path) -> Tensor:
    """Resized to 256 on the shorter side, the middle 224 x 224, (pixel - 127) / 128."""
    with Image.open(file) as image:
        scale = 256 / min(image.size)
        resized = image.convert("RGB").resize([round(side * scale) for side in image.size], Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]


def probabilities(features: Tensor) -> Tensor:
    """By a head with 5 classes that was fitted to the features themselves."""
    labels = (torch.arange(len(features)) % 5)[None]
    return logistic_regression(features[None], labels, 5, c=10.0).scores(features[None]).softmax(-1)


if __name__ == "__main__":
    main()
