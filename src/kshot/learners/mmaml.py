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
    """MAML on a network that is first scaled and shifted, channel by channel, by what kind of task it sees.

    ::

        for each task i of the batch, with support set S_i and query set Q_i:          (Vuorio et al., Algorithm 1)
            v_i = h({(x_k, y_k) of S_i})                                     (the task, encoded)
            tau_i = g(v_i): a scale and a shift of each layer's outputs      (FiLM)
            phi_i = theta
            repeat inner_steps times:
                phi_i = phi_i - inner_rate * grad_phi L(phi_i, tau_i; S_i)   (tau_i stays as it is)
            loss_i = L(phi_i, tau_i; Q_i)
        theta, h, g = outer optimiser's step along the gradient of  mean over i of  loss_i

    What the paper leaves open is decided so: h is a second network of the backbone's kind, which starts as a copy, with
    a layer on features and label, and the mean over examples; the release shows it the images alone. g is linear and
    gives the scale's difference from one, as in the release. FiLM follows the normalisations, which keep a scale and
    shift of their own; the release has none except FiLM's.

    Parameters
    ----------
    embedding_size
        Of the vector v.
    inner_clip
        Entries of the inner gradients are cut to [-inner_clip, inner_clip].
    inner_rate
        Step size on the MEAN cross-entropy.

    Raises
    ------
    ConfigError
        For a backbone without layers that FiLM could follow.
    """

    meta_batch = 10

    def __init__(
        self,
        backbone: Backbone,
        *,
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
            backbone,
            ways=ways,
            inner_rate=inner_rate,
            inner_steps=inner_steps,
            test_inner_steps=test_inner_steps,
            first_order=first_order,
            tasks_at_once=tasks_at_once,
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
        """tau: scale and shift (B, C) of each layer, by the names that the network has for them.

        Parameters
        ----------
        episodes
            A batch of tasks whose weights are held at the same time.
        """
        embedding = self.examples(episodes).mean(1)
        tau: Weights = {}
        for place, layer in enumerate(self.modulation):
            scale, shift = layer(embedding).chunk(2, 1)
            tau |= {f"scale_{place}": 1 + scale, f"shift_{place}": shift}
        return tau


class ModulatedClassifier(Classifier):
    """A classifier whose normalised maps are scaled and shifted by buffers, which a task's own take the place of.

    Parameters
    ----------
    classifier
        Whose backbone and head it takes over.

    Attributes
    ----------
    names, channels
        Of the layers that are modulated, in their order: layer i has the buffers ``scale_i`` and ``shift_i``, (C,),
        which are not saved, since they are one and zero for good.
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
        modulations = [(self.get_buffer(f"scale_{i}"), self.get_buffer(f"shift_{i}")) for i in range(len(self.names))]
        with modulated(self.backbone, dict(zip(self.names, modulations))):
            return super().forward(images)
