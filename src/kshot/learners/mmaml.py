"""Multimodal model-agnostic meta-learning: MAML on a network that the task modulates (Vuorio et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kshot.backbones.film import modulated, modulated_layers
from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import check_positive
from kshot.learners.base import learners
from kshot.learners.initialization import Classifier
from kshot.learners.maml import MAML
from kshot.learners.task_encoders import ExampleEncoder
from kshot.solvers.descent import Weights


@learners.register("mmaml")
class MMAML(MAML):
    """MAML whose network is first scaled and shifted, channel by channel, by what kind of task it sees (Algorithm 1).

    The support set is encoded as a vector, v = h({(x_k, y_k)}), and v as scale and shift of each layer, tau = g(v);
    FiLM multiplies the layer's outputs by the one and adds the other. Then MAML's inner loop adapts the weights theta,
    while tau stays as it is. theta, h and g are learnt by the query loss.

    What the paper leaves open is decided so: h is a second network of the backbone's kind, which starts as a copy, with
    a layer on features and label, and the mean over examples; the release shows it the images alone. g is linear and
    gives the scale's difference from one, as in the release. FiLM follows the normalisations, which keep a scale and
    shift of their own; the release has none besides FiLM's.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    ways: N, the rows of the head.
    embedding_size: of the vector v.
    inner_clip: entries of the inner gradients are cut to [-inner_clip, inner_clip].
    inner_rate: step size on the MEAN cross-entropy.
    inner_steps, test_inner_steps: gradient steps a task in training and in evaluation.
    first_order: leave out the derivatives of the inner gradients.

    Raises ConfigError for a backbone without layers that FiLM could follow.
    """

    meta_batch = 10

    def __init__(
        self,
        backbone: Backbone,
        ways: int = 5,
        embedding_size: int = 128,
        inner_clip: float = 20.0,
        inner_rate: float = 0.05,
        inner_steps: int = 5,
        test_inner_steps: int = 5,
        first_order: bool = False,
        tasks_at_once: int | None = None,
    ) -> None:
        super().__init__(
            backbone, ways, inner_rate, inner_steps, test_inner_steps, first_order, tasks_at_once=tasks_at_once
        )
        check_positive(embedding_size=embedding_size)
        check_positive(inner_clip=inner_clip)
        self.inner_clip = inner_clip
        self.can_compile = False
        self.network = ModulatedClassifier(self.network)
        self.examples = ExampleEncoder(backbone, ways, embedding_size)
        self.modulation = nn.ModuleList(nn.Linear(embedding_size, 2 * size) for size in self.network.channels)

    def start(self, episodes: Episodes) -> Weights:
        """The initialisation, with the scales and shifts of each task's layers: (B, ...) for each name."""
        return self.initial(episodes.tasks) | self.modulations(episodes)

    def modulations(self, episodes: Episodes) -> Weights:
        """tau: scale and shift (B, C) of each layer, by the names that the network has for them."""
        embedding = self.examples(episodes).mean(1)
        found: Weights = {}
        for place, layer in enumerate(self.modulation):
            scale, shift = layer(embedding).chunk(2, 1)
            found |= {f"scale_{place}": 1 + scale, f"shift_{place}": shift}
        return found


class ModulatedClassifier(Classifier):
    """A classifier whose normalised maps are scaled and shifted by buffers, in whose place come those of a task.

    classifier: whose backbone and head it takes over.
    channels: of the layers that are modulated, in their order: layer i has the buffers ``scale_i`` and ``shift_i``,
        (C,), which are not saved, since they are one and zero for good.
    """

    def __init__(self, classifier: Classifier) -> None:
        nn.Module.__init__(self)
        self.backbone, self.head = classifier.backbone, classifier.head
        layers = modulated_layers(self.backbone)
        self.names, self.channels = list(layers), list(layers.values())
        for place, size in enumerate(self.channels):
            self.register_buffer(f"scale_{place}", torch.ones(size), persistent=False)
            self.register_buffer(f"shift_{place}", torch.zeros(size), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the images (M, C, H, W)."""
        own = [(self.get_buffer(f"scale_{i}"), self.get_buffer(f"shift_{i}")) for i in range(len(self.names))]
        with modulated(self.backbone, dict(zip(self.names, own))):
            return super().forward(images)
