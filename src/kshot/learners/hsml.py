"""Hierarchically structured meta-learning: an initialisation that clusters of tasks tailor (Yao et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, check_not_negative, check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import Gradients, as_weights
from kshot.learners.maml import MAML
from kshot.learners.task_encoders import ExampleEncoder, RecurrentAutoEncoder
from kshot.solvers.descent import Weights


@learners.register("hsml")
class HSML(MAML):
    """MAML from an initialisation that is gated by the place of the task in a soft tree of clusters (Yao et al. 2019).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            g_i = mean state of a recurrent encoder over the examples of S_i           (section 4.1)
            h_i = state of the root: from level to level, sum over the states below
                  of share * tanh(W h + b), shares by distance to the centres          (section 4.2)
            theta_i = theta_0 * sigmoid(W [g_i, h_i] + b)                              (section 4.3)
            phi_i = theta_i after inner_steps of gradient descent on L(.; S_i)
            loss_i = L(phi_i; Q_i) + reconstruction_weight * error of decoding S_i from g_i
        all = outer optimiser's step along the gradient of  mean over i of  loss_i

    Shares in clusters go by distance at EVERY level, as in section 4.2; above the leaves the release takes, unless told
    otherwise, the softmax of a linear gate. Centres start as in the release, Glorot-uniform.

    What the paper leaves open is decided so: images are encoded by a second network of the backbone's kind, which
    starts as a copy; the error is a mean over examples and units, as in the release, so that its weight does not
    depend on the shots; the decoder has no input, the release's reads its own last output; all examples are embedded,
    in the release the first ten of a task; b starts at zero, and so gates near one half. The gate has 2 * `hidden`
    weights for each weight of the network, which suits networks of Conv4's size. Examples are read in their order, on
    which scores depend.

    Parameters
    ----------
    hidden
        H, the size of codes, embeddings and states of clusters.
    clusters
        Of the levels above the task, from the leaves to the root, which is one.
    sigma
        The distance to a leaf's centre over which a task's share in it falls; 1 above the leaves, as in the release,
        which divides squared distances by 2 * 10 at the leaves: that is sqrt(10) here.
    reconstruction_weight
        Of the auto-encoder's error in the objective.
    inner_rate
        Step size on the MEAN cross-entropy.
    """

    ignores_support_order = False

    def __init__(
        self,
        backbone: Backbone,
        *,
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
            backbone,
            ways=ways,
            inner_rate=inner_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            tasks_at_once=tasks_at_once,
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

    def gradients(self, episodes: Episodes) -> tuple[Tensor, Gradients]:
        """Mean objective and accuracy of these tasks, (2,), and the mean gradient of the objective."""
        return self.gradients_of(*self.task_objective(episodes))

    def task_objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Query loss plus weighted reconstruction error, and the accuracy, of tasks whose weights are held together."""
        embedding, errors = self._embedded(episodes)
        weights = self.adapted(episodes, self.inner_steps, start=self._gated(embedding))
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

    Parameters
    ----------
    clusters
        How many this level has.
    hidden
        H, the size of a state.
    sigma
        The distance to a centre over which shares fall.
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
