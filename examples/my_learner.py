"""A learner of your own: class means compared by cosine, with a learnt temperature.

    python examples/my_learner.py        # checks the learner, then trains and tests it: seconds

Within kshot, the class would be a file in `src/kshot/learners/` and a row in its `__init__.py`; see
docs/adding-a-learner.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kshot
from kshot.backbones import Backbone
from kshot.data.episodes import Episodes
from kshot.learners.base import FeatureLearner, learners
from kshot.solvers.prototypes import Cosine
from kshot.testing import check_learner


@learners.register("cosine-net")
class CosineNet(FeatureLearner):
    """Query images are scored by the cosine to the class means, times a learnt temperature.

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            f(x) = h(x; theta) / |h(x; theta)|
            c_k = mean of f(x) over the images x of class k in S_i, made of unit length
            p(k | x) = softmax over k of  temperature * cos(f(x), c_k)
            loss_i = mean of  -log p(y | x)  over (x, y) in Q_i
        theta, temperature = optimiser's step along the gradient of  mean over i of  loss_i

    Parameters
    ----------
    temperature
        Where the learnt temperature starts.
    """

    def __init__(self, backbone: Backbone, *, temperature: float = 10.0) -> None:
        super().__init__(backbone, adaptation=Cosine())
        self.temperature = nn.Parameter(torch.tensor(temperature))

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the query images, and their labels (B, T)."""
        scores, labels = super().training_scores(episodes)
        return self.temperature * scores, labels

    def features(self, images: Tensor) -> Tensor:
        """Features (M, D) of unit length of images (M, C, H, W)."""
        return F.normalize(super().features(images), dim=-1)


def main(**options: Any) -> float:
    """Check the learner, train it on glyphs, and return its accuracy on unseen scripts."""
    check_learner(CosineNet)
    data = kshot.load("glyphs")
    learner = kshot.create_learner("cosine-net", data, backbone_options={"width": 16})
    training = {"tasks_per_epoch": 40, "meta_batch": 2, "max_epochs": 1, "validation_tasks": 40, "learning_rate": 3e-3}
    kshot.train(learner, data, ways=10, **training | {"progress": False} | options)
    return kshot.evaluate(learner, data.test, ways=5, shots=5, tasks=200).mean


if __name__ == "__main__":
    print(f"accuracy on unseen scripts: {main():.1%}")
