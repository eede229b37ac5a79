"""Features that the benchmarks of heads share: computed once, and kept in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

import kshot
from kshot.data.dataset import Normalization, Split
from kshot.data.episodes import IntArray
from kshot.evaluation.features import evaluating, features_at
from kshot.learners import FeatureLearner
from kshot.photos.features import photo_features
from kshot.photos.network import PretrainedNetwork

PHOTO_NETWORK = "efficientnet-lite0"
_AT_ONCE = 100  # images, after which what was computed is on the disk
# per class; of the training images, those that the mean feature is taken of
_MOST_IMAGES = {"train": 10, "val": 300, "test": 100}


def features_of(source: str, data: str, part: str, *, cache: Path, root: Path | None) -> Split:
    """The features of a split of a dataset as a split of vectors of unit length, whose images are (M, 1, 1, D).

    Parameters
    ----------
    source
        "efficientnet-lite0", with weights of ImageNet, or the folder of a run whose learner has features.
    data, part
        Names of the dataset and of its split.
    cache
        Where features are kept, in pieces until all are there.
    root
        Of prepared datasets.
    """
    split = kshot.load(data, root=root).split(part)
    counts = np.minimum(split.counts, _MOST_IMAGES[part])
    rows = np.concatenate([first + np.arange(count) for first, count in zip(split.starts, counts)])
    name = f"{Path(source).name}-{data}-{part}"
    path = cache / f"{name}.pt"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pieces = [cache / f"{name}-{start}.piece" for start in range(0, len(rows), _AT_ONCE)]
        for piece, some in zip(pieces, np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE))):
            if not piece.exists():
                torch.save(_computed(source, split, some), piece)
        torch.save(torch.cat([torch.load(piece, weights_only=True) for piece in pieces]), path)
        for piece in pieces:
            piece.unlink()
    vectors = normalize(torch.load(path, weights_only=True), dim=1).numpy()
    size = vectors.shape[1]
    return Split(
        name=split.name,
        dataset=data,
        images=vectors[:, None, None],
        counts=counts,
        class_names=split.class_names,
        domains=split.domains,
        normalization=Normalization((0.0,) * size, (1.0,) * size, "none"),
    )


def _computed(source: str, split: Split, rows: IntArray) -> Tensor:
    """Features (M, D) of the images at these rows."""
    if source == PHOTO_NETWORK:
        network, pieces = PretrainedNetwork(PHOTO_NETWORK), np.split(rows, range(250, len(rows), 250))
        return torch.cat([photo_features(network, np.asarray(split.images[some])).features for some in pieces])
    learner = kshot.Run(source).learner
    assert isinstance(learner, FeatureLearner), f"{source} has no features"
    with torch.no_grad(), evaluating(learner, "float32"):
        return features_at(learner, split, rows)
