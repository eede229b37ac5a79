"""Hierarchically structured meta-learning: an initialisation that clusters of tasks tailor (Yao et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_not_negative, check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import as_weights
from kshot.learners.maml import MAML
from kshot.learners.task_encoders import ExampleEncoder, RecurrentAutoEncoder
from kshot.solvers.descent import Weights


@learners.register("hsml")
class HSML(MAML):
    """MAML from theta_0 * gate(task), by the place of the task in a soft tree of clusters (Yao et al. 2019).

    A recurrent auto-encoder embeds the support set, g; a tree of clusters turns g into the state h of its root; a gate
    o = sigmoid(W [g, h] + b), one number for every single weight, multiplies the initialisation; MAML's inner loop
    follows (section 4.3). The objective is the query loss plus `reconstruction_weight` times the auto-encoder's error.

    Shares in clusters go by distance at EVERY level, as in section 4.2; above the leaves the release takes, unless told
    otherwise, the softmax of a linear gate. Centres start as in the release, Glorot-uniform.

    What the paper leaves open is decided so: images are encoded by a second network of the backbone's kind, which
    starts as a copy; the error is a mean over examples and units, as in the release, so that its weight does not
    depend on the shots; the decoder has no input, the release's reads its own last output; all examples are embedded,
    in the release the first ten of a task; b starts at zero, and so gates near one half. The gate has 2 * `hidden`
    weights for each weight of the network, which suits networks of Conv4's size. Examples are read in their order, on
    which scores depend.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways: N, the rows of the head.
    hidden: H, the size of codes, embeddings and states of clusters.
    clusters: of the levels above the task, from the leaves to the root, which is one.
    sigma: the distance to a leaf's centre over which a task's share in it falls; 1 above the leaves, as in the release,
        which divides squared distances by 2 * 10 at the leaves: that is sqrt(10) here.
    reconstruction_weight: of the auto-encoder's error in the objective.
    inner_rate: step size on the MEAN cross-entropy.
    inner_steps, test_inner_steps: gradient steps a task in training and in evaluation.
    first_order: leave out the derivatives of the inner gradients.
    """

    ignores_support_order = False

    def __init__(
        self,
        backbone: Backbone,
        ways: int = 5,
        hidden: int = 128,
        clusters: tuple[int, ...] = (4, 2, 1),
        sigma: float = 3.162,
        reconstruction_weight: float = 0.01,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 10,
        first_order: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways, inner_rate, inner_steps, test_inner_steps, first_order, tasks_at_once=tasks_at_once
        )
        check_positive(hidden=hidden)
        if not clusters or clusters[-1] != 1 or min(clusters) < 1:
            raise ConfigError(f"clusters is {list(clusters)}, but must be numbers above 0 that end in the root, 1")
        check_positive(sigma=sigma)
        check_not_negative(reconstruction_weight=reconstruction_weight)
        self.reconstruction_weight = reconstruction_weight
        self.examples = ExampleEncoder(backbone, ways, hidden)
        self.auto_encoder = RecurrentAutoEncoder(hidden, hidden)
        distances = [sigma, *[1.0] * (len(clusters) - 1)]
        self.tree = nn.Sequential(*(ClusterLevel(count, hidden, over) for count, over in zip(clusters, distances)))
        self.gate = nn.Linear(2 * hidden, sum(weight.numel() for weight in self.network.parameters()))
        nn.init.zeros_(self.gate.bias)

    def start(self, episodes: Episodes) -> Weights:
        """The gated initialisation of each task, (B, ...) for each name."""
        return self._gated(self._embedded(episodes)[0])

    def objective_at_once(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Query loss and weighted reconstruction error, and the accuracy, of tasks whose weights are held together."""
        embedding, errors = self._embedded(episodes)
        weights = self.descend(self._gated(embedding), episodes, self.inner_steps)
        loss, correct = self.query_objective(weights, episodes)
        return loss + self.reconstruction_weight * errors.mean(), correct

    def _embedded(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The embeddings g (B, H) of the tasks, and the errors (B,) of the auto-encoder."""
        return self.auto_encoder(self.examples(episodes))

    def _gated(self, embedding: Tensor) -> Weights:
        root = self.tree(embedding.unsqueeze(1)).squeeze(1)
        initial = self.initial(len(embedding))
        gates = as_weights(self.gate(torch.cat([embedding, root], 1)).sigmoid(), initial)
        return {name: weight * gates[name] for name, weight in initial.items()}


class ClusterLevel(nn.Module):
    """One level of the soft tree: the states of the level below flow into the clusters of this one.

    A state's share in a cluster is the softmax over clusters of -|(h - centre) / sigma|^2 / 2; the state of a
    cluster is the sum over the states below of share * tanh(W h + b), with weights of its own (section 4.2). A single
    cluster has no centre, since every share in it is one.
    """

    def __init__(self, clusters: int, hidden: int, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma
        reach = math.sqrt(6 / (1 + hidden))
        self.centres = nn.Parameter(torch.empty(clusters, hidden).uniform_(-reach, reach)) if clusters > 1 else None
        layers = [nn.Linear(hidden, hidden) for _ in range(clusters)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, states: Tensor) -> Tensor:
        """States (B, clusters, H) from those of the level below, (B, K, H)."""
        moved = (torch.einsum("bkh,cgh->bkcg", states, self.weight) + self.bias).tanh()
        if self.centres is None:
            return moved.sum(1)
        distances = ((states.unsqueeze(2) - self.centres) / self.sigma).square().sum(-1)
        return ((-distances / 2).softmax(2).unsqueeze(-1) * moved).sum(1)
