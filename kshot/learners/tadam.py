"""Task dependent adaptive metric: TADAM (Oreshkin, Rodriguez and Lacoste 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot import seeding
from kshot.backbones.film import Modulations, modulated, modulated_layers
from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks, current_task_batch
from kshot.data.episodes import Episodes
from kshot.errors import check_not_negative
from kshot.learners.base import Learner, accuracy, learners, task_losses
from kshot.solvers.adaptation import NearestCentroid
from kshot.solvers.heads import class_means
from kshot.solvers.scaled import ScaledHead

_AUXILIARY_DRAW = 1 << 23  # of a task's key; apart from the draws of augmentation and dropout


@learners.register("tadam")
class TADAM(Learner):
    """Prototypes at a learnt scale (section 2.1), of features that depend on the task (2.2), with co-training (2.4).

    The support images go through the network as it is, and the mean of their prototypes stands for the task. A further
    network makes of it a scale and a shift for every layer, under which support and query images go through. In
    training, the plain support features are told apart among all training classes as well: after t of T tasks, of a
    task with probability .9^(1 + floor(20 t / T)).

    What the paper leaves open: distances are squared as ProtoNet's are (the release takes the root); shortcuts are not
    modulated, and modulations start at the identity (both as in the release). The paper makes co-training a step of its
    own, on 64 images of all classes; here its loss is added to the task's, on the support images that are computed in
    any case. The scale is learnt; the release chooses it on the validation classes.
    BatchNorm's running statistics are those of both passes.

    backbone: images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    num_classes: the number of training classes, for co-training.
    scale: where the learnt scale of the distances starts.
    modulation_start: where the factors start that the modulations are multiplied by; at 0 they are the identity.
    modulation_penalty: weight of the sum of these factors' squares in the loss, in halves.
    cotraining_tasks: T, tasks of training over which co-training becomes rare; 0 for no co-training.
    """

    meta_batch = 2
    can_compile = False
    training_tasks: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        scale: float = 1.0,
        modulation_start: float = 0.0,
        modulation_penalty: float = 0.01,
        cotraining_tasks: int = 60_000,
    ) -> None:
        check_not_negative("cotraining_tasks", cotraining_tasks)
        super().__init__()
        self.backbone = backbone
        self.task_embedding = TaskEmbedding(backbone.feature_size, modulated_layers(backbone), modulation_start)
        self.metric = ScaledHead(NearestCentroid(), scale)
        self.classifier = nn.Linear(backbone.feature_size, num_classes) if cotraining_tasks else None
        self.modulation_penalty, self.cotraining_tasks = modulation_penalty, cotraining_tasks
        self.register_buffer("training_tasks", torch.zeros((), dtype=torch.int64))

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images by scaled distance to the prototypes of the modulated network."""
        return self._modulated_scores(episodes, self._features(episodes.support))

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the query images, and their labels (B, T)."""
        return self._both_passes(episodes)[1], episodes.query_labels

    def meta_loss(self, episodes: Episodes) -> Tensor:
        """Mean over tasks of the cross-entropy of the query images and, if drawn, of co-training, plus the penalty."""
        return self._measured(episodes)["loss"]

    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        """Add the gradient of the objective to ``.grad``; returns the scalars "loss" and "accuracy", detached."""
        measured = self._measured(episodes)
        measured["loss"].backward()
        with batch_of_tasks(episodes.tasks):
            self.training_tasks += current_task_batch().total
        return {name: value.detach() for name, value in measured.items()}

    def _measured(self, episodes: Episodes) -> dict[str, Tensor]:
        plain, scores = self._both_passes(episodes)
        losses = task_losses(scores, episodes.query_labels)
        if self.classifier is not None:
            classes = episodes.classes.gather(1, episodes.support_labels)
            losses = losses + self.cotrained(episodes) * task_losses(self.classifier(plain), classes)
        penalty = self.modulation_penalty / 2 * self.task_embedding.factors.square().sum()
        return {"loss": losses.mean() + penalty, "accuracy": accuracy(scores, episodes.query_labels)}

    def cotrained(self, episodes: Episodes) -> Tensor:
        """(B,) whether a training task counts for co-training, drawn from its key; section 2.4."""
        probability = 0.9 ** (1 + 20 * self.training_tasks // self.cotraining_tasks)
        draws = torch.from_numpy(seeding.uniform(episodes.keys, _AUXILIARY_DRAW))
        return draws.to(probability.device) < probability

    def _both_passes(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Plain support features (B, S, D) and scores (B, T, N), as in training."""
        # the ramp of DropBlock counts a task once
        with batch_of_tasks(episodes.tasks, episodes.keys, total=0):
            plain = self._features(episodes.support)
        with batch_of_tasks(episodes.tasks, episodes.keys):
            return plain, self._modulated_scores(episodes, plain)

    def _modulated_scores(self, episodes: Episodes, plain: Tensor) -> Tensor:
        task = class_means(plain, episodes.support_labels, episodes.ways).mean(1)
        with modulated(self.backbone, self.task_embedding(task)):
            features = self._features(episodes.images())
        support, query = features.tensor_split([plain.shape[1]], dim=1)
        return self.metric.head(support, episodes.support_labels, episodes.ways).scores(query)

    def _features(self, images: Tensor) -> Tensor:
        """Features (B, M, D), float32 or wider, of images (B, M, C, H, W)."""
        return self.in_precision(self.backbone, images.flatten(0, 1)).unflatten(0, images.shape[:2])


class TaskEmbedding(nn.Module):
    """The task embedding network TEN: a task's mean feature c to the scale and shift of each layer (section 2.2).

    scale = 1 + gamma_0 g(c) and shift = beta_0 h(c), with networks g, h and factors gamma_0, beta_0 for each layer.

    size: D, of the mean feature.
    channels: of each layer that is modulated, by its name.
    start: of the factors.
    """

    def __init__(self, size: int, channels: dict[str, int], start: float) -> None:
        super().__init__()
        self.names = list(channels)
        self.scales = nn.ModuleList(ResidualPerceptron(size, width) for width in channels.values())
        self.shifts = nn.ModuleList(ResidualPerceptron(size, width) for width in channels.values())
        self.factors = nn.Parameter(torch.full((len(channels), 2), float(start)))

    def forward(self, tasks: Tensor) -> Modulations:
        """Scale and shift (B, C) of each layer for mean features (B, D)."""
        parts = zip(self.names, self.scales, self.shifts, self.factors)
        return {name: (1 + by[0] * scale(tasks), by[1] * shift(tasks)) for name, scale, shift, by in parts}


class ResidualPerceptron(nn.Module):
    """Three fully connected layers of one width, the last two beside shortcuts, with ELU between them (section 2.3)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) to (B, width)."""
        hidden = F.elu(self.first(features))
        hidden = F.elu(self.second(hidden) + hidden)
        return self.third(hidden) + hidden
