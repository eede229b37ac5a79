"""What a support set says about its task as a whole: encoders of examples, and of tasks from their examples."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.episodes import Episodes


class ExampleEncoder(nn.Module):
    """Image and label of a support example -> its code.

    A network with weights of its own, which starts as a copy of the learner's backbone, is followed by a layer with
    ReLU on features and one-hot label. BatchNorm takes the statistics of a task's support set. It computes in the
    precision of its weights.

    Parameters
    ----------
    backbone
        The learner's backbone, which is copied.
    ways
        N, classes per task.
    size
        Of a code.
    """

    def __init__(self, backbone: Backbone, ways: int, size: int) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        self.ways = ways
        self.layer = nn.Linear(backbone.feature_size + ways, size)

    def forward(self, episodes: Episodes) -> Tensor:
        """Codes (B, S, size) of the support examples; labels are class numbers (B, S) or real-valued (B, S, N)."""
        with batch_of_tasks(episodes.tasks, own_statistics=True):
            features = self.backbone(episodes.support.flatten(0, 1)).unflatten(0, (episodes.tasks, -1))
        labels = episodes.support_labels
        labels = labels if labels.is_floating_point() else F.one_hot(labels, self.ways)
        return self.layer(torch.cat([features, labels.to(features.dtype)], -1)).relu()


class RecurrentAutoEncoder(nn.Module):
    """A task from the codes of its examples, which it reads one after the other and then recovers (Yao et al. 2019).

    The embedding is the mean of the encoder's states (section 4.1). The decoder starts from the last of them, has no
    inputs, and gives the codes in reverse order.

    Parameters
    ----------
    size
        Of a code.
    hidden
        H, units of both GRUs.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(size, hidden, batch_first=True)
        # it has no inputs: a constant in their place is a bias
        self.decoder = nn.GRU(1, hidden, batch_first=True)
        self.output = nn.Linear(hidden, size)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, H) of codes (B, S, size), and the mean squared error (B,) of recovering them."""
        states, last = self.encoder(codes)
        decoded, _ = self.decoder(codes.new_ones(*codes.shape[:2], 1), last)
        errors = (self.output(decoded) - codes.flip(1)).square().mean((1, 2))
        return states.mean(1), errors
