"""Features of photographs by a pretrained network: four ways to run EfficientNet-Lite0 on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/photos.py --repeats 9

The same batch of random images goes through all of them in turns, in one process; medians are printed, and how far the
features of unit length, and the probabilities of a head with 5 classes, are from those of the network as it stands.
Needs ``pip install kshot[photos]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import describe_machine, interleaved
from torch import Tensor
from torch.nn.functional import normalize

from kshot.backbones import EfficientNetLite0
from kshot.photos.fast import by_onnx_runtime, folded_batch_norm
from kshot.solvers import logistic_regression


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="per batch")
    parser.add_argument("--repeats", type=int, default=9, help="rounds; medians are printed")
    options = parser.parse_args()
    network = EfficientNetLite0(pretrained=True).eval()
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


def probabilities(features: Tensor) -> Tensor:
    """By a head with 5 classes that was fitted to the features themselves."""
    labels = (torch.arange(len(features)) % 5)[None]
    return logistic_regression(features[None], labels, 5, c=10.0).scores(features[None]).softmax(-1)


if __name__ == "__main__":
    main()
