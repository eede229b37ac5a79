"""Task dependent adaptive metric: TADAM (Oreshkin, Rodriguez and Lacoste 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from kshot import seeding
from kshot.backbones.film import Modulations, modulated, modulated_layers
from kshot.backbones.registry import Backbone
from kshot.backbones.task_batch import batch_of_tasks
from kshot.data.dataset import Split
from kshot.data.episodes import Episodes, IntArray, Sampler, TaskShape
from kshot.data.image_sampler import ImageSampler
from kshot.data.tasks import AnySplit
from kshot.errors import check_not_negative, check_positive
from kshot.learners.base import Learner, accuracy, learners, task_losses
from kshot.solvers.heads import class_means
from kshot.solvers.prototypes import NearestCentroid
from kshot.solvers.scaled import ScaledHead

_COTRAINING_DRAW = 1 << 23  # of a task's key; apart from the draws of augmentation and dropout


@learners.register("tadam")
class TADAM(Learner):
    """Prototypes at a learnt scale, of features that depend on the task, with co-training (Oreshkin et al. 2018).

    ::

        for each task i of the batch, with support set S_i and query set Q_i:
            c = mean over classes of the prototypes of S_i, features by the network as it is
            scale, shift of each layer = 1 + gamma_0 g(c), beta_0 h(c)       (TEN, section 2.2)
            c_k = mean of f(x; scale, shift) over the images x of class k in S_i
            loss_i = mean cross-entropy of  -alpha |f(x; scale, shift) - c_k|^2  on Q_i          (section 2.1)
            with probability .9^(1 + floor(20 t / T)):  loss_i += cross-entropy of further images
                among all training classes, by the network as it is          (co-training, section 2.4)
        all = optimiser's step along the gradient of  mean over i of  loss_i  + the penalty of gamma_0 and beta_0

    What the paper leaves open: distances are squared as ProtoNet's are (the release takes the root); shortcuts are not
    modulated, and modulations start at the identity (both as in the release). Co-training adds its loss to the task's;
    in the release it is a step of its own, before the task's. The scale alpha is learnt; the release chooses it on the
    validation classes. BatchNorm's running statistics are those of the tasks: co-training, which some steps have and
    others do not, leaves them as they are, so that processes that share a step agree on them.

    Parameters
    ----------
    backbone
        Images (M, C, H, W) -> features (M, D), with attribute ``feature_size`` = D.
    num_classes
        The number of training classes, for co-training.
    scale
        Where the learnt scale alpha of the distances starts.
    modulation_start
        Where the factors gamma_0 and beta_0 start, by which the modulations are multiplied; at 0 they are the identity.
    modulation_penalty
        Weight of the sum of these factors' squares in the loss, in halves.
    cotraining_tasks
        T, tasks of training over which co-training becomes rare; 0 for no co-training.
    cotraining_images
        Per task; the paper has 64 for each step, of two tasks at five shots.

    Raises
    ------
    ConfigError
        For a backbone without layers that FiLM could follow.
    """

    meta_batch = 2
    can_compile = False

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_classes: int,
        scale: float = 1.0,
        modulation_start: float = 0.0,
        modulation_penalty: float = 0.01,
        cotraining_tasks: int = 60_000,
        cotraining_images: int = 32,
    ) -> None:
        check_positive(num_classes=num_classes)
        check_not_negative(modulation_penalty=modulation_penalty)
        check_not_negative(cotraining_tasks=cotraining_tasks)
        check_positive(cotraining_images=cotraining_images)
        super().__init__()
        self.backbone = backbone
        self.task_embedding = TaskEmbedding(backbone.feature_size, modulated_layers(backbone), modulation_start)
        self.metric = ScaledHead(NearestCentroid(), scale=scale)
        self.classifier = nn.Linear(backbone.feature_size, num_classes) if cotraining_tasks else None
        self.modulation_penalty = modulation_penalty
        self.cotraining_tasks, self.cotraining_images = cotraining_tasks, cotraining_images

    def sampler(self, split: AnySplit, shape: TaskShape, *, seed: int, within_domain: bool | None = None) -> Sampler:
        """Tasks and, for co-training, images of the whole split with each of them."""
        tasks = super().sampler(split, shape, seed=seed, within_domain=within_domain)
        if self.classifier is None:
            return tasks
        assert isinstance(split, Split), "check_ways refuses tasks of regression"
        return CotrainingSampler(
            tasks, ImageSampler(split, seed), images_per_task=self.cotraining_images, total=self.cotraining_tasks
        )

    def scores(self, episodes: Episodes) -> Tensor:
        """Scores (B, T, N) of the query images by scaled distance to the prototypes of the modulated network."""
        return self._modulated_scores(episodes, self._features(episodes.support))

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, T, N) of the query images, and their labels (B, T)."""
        # the ramp of DropBlock counts a task once
        with batch_of_tasks(episodes.tasks, episodes.keys, total=0):
            plain = self._features(episodes.support)
        with batch_of_tasks(episodes.tasks, episodes.keys):
            return self._modulated_scores(episodes, plain), episodes.query_labels

    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Mean over tasks of the cross-entropy of the query images and, if drawn, of co-training, plus the penalty."""
        scores, labels = self.training_scores(episodes)
        loss = self.loss(scores, labels) + self.modulation_penalty / 2 * self.task_embedding.factors.square().sum()
        if self.classifier is not None and isinstance(episodes, CotrainingEpisodes) and episodes.drawn.any():
            loss = loss + self._cotraining_losses(self.classifier, episodes).sum() / episodes.tasks
        return loss, accuracy(scores.detach(), labels)

    def _cotraining_losses(self, classifier: nn.Linear, episodes: CotrainingEpisodes) -> Tensor:
        """The mean cross-entropy (b,) of the further images of each of the b tasks that were drawn for co-training."""
        drawn = np.flatnonzero(episodes.drawn)
        images = episodes.query[drawn, episodes.query_labels.shape[1] :]
        with batch_of_tasks(len(drawn), episodes.keys[drawn], total=0, own_statistics=True):
            return task_losses(classifier(self._features(images)), episodes.image_classes[drawn])

    def _modulated_scores(self, episodes: Episodes, plain: Tensor) -> Tensor:
        shots, queries = episodes.support_labels.shape[1], episodes.query_labels.shape[1]
        task = class_means(plain, episodes.support_labels, episodes.ways).mean(1)
        with modulated(self.backbone, self.task_embedding(task)):
            features = self._features(episodes.images()[:, : shots + queries])
        support, query = features.tensor_split([shots], dim=1)
        return self.metric.head(support, episodes.support_labels, episodes.ways).scores(query)

    def _features(self, images: Tensor) -> Tensor:
        """Features (B, M, D), float32 or wider, of images (B, M, C, H, W)."""
        return self.in_precision(self.backbone, images.flatten(0, 1)).unflatten(0, images.shape[:2])


@dataclass(frozen=True)
class CotrainingEpisodes(Episodes):
    """Tasks whose T query images are followed by A images of the whole split, which have no label in the task.

    Attributes
    ----------
    image_classes
        (B, A) int64, the classes of these images.
    drawn
        (B,) bool, whether a task counts for co-training.
    """

    image_classes: Tensor
    drawn: NDArray[np.bool_]


class CotrainingSampler:
    """Tasks with images of the whole split, as many for each, and fewer and fewer tasks that use them.

    Task number t is drawn with probability .9^(1 + floor(20 t / T)); section 2.4.

    Parameters
    ----------
    tasks
        What the tasks are drawn from.
    images
        What the further images are drawn from.
    images_per_task
        How many further images each task has.
    total
        T, the number of tasks over which co-training becomes rare.
    """

    def __init__(self, tasks: Sampler, images: ImageSampler, *, images_per_task: int, total: int) -> None:
        self.tasks, self.images, self.images_per_task, self.total = tasks, images, images_per_task, total

    def episodes(self, numbers: IntArray, device: torch.device | str = "cpu") -> Episodes:
        """The tasks with these numbers, as sampled, on `device`."""
        tasks = self.tasks.episodes(numbers, device)
        image_numbers = np.asarray(numbers)[:, None] * self.images_per_task + np.arange(self.images_per_task)
        images = self.images.episodes(image_numbers.reshape(-1), device)
        shape = (len(numbers), self.images_per_task)
        probabilities = 0.9 ** (1 + 20 * np.asarray(numbers) // self.total)
        return CotrainingEpisodes(
            support=tasks.support,
            support_labels=tasks.support_labels,
            query=torch.cat([tasks.query, images.support.squeeze(1).unflatten(0, shape)], 1),
            query_labels=tasks.query_labels,
            classes=tasks.classes,
            keys=tasks.keys,
            image_classes=images.support_labels.view(shape),
            drawn=seeding.uniform(tasks.keys, _COTRAINING_DRAW) < probabilities,
        )


class TaskEmbedding(nn.Module):
    """The task embedding network TEN: a task's mean feature c to the scale and shift of each layer (section 2.2).

    scale = 1 + gamma_0 g(c) and shift = beta_0 h(c), with networks g, h and factors gamma_0, beta_0 for each layer.

    Parameters
    ----------
    size
        D, of the mean feature.
    channels
        Of each layer that is modulated, by its name.
    start
        Of the factors.
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
    """Three fully connected layers of one width with ELU between them, the last two with shortcuts (section 2.3)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) to (B, width)."""
        hidden = F.elu(self.first(features))
        hidden = F.elu(self.second(hidden) + hidden)
        return self.third(hidden) + hidden
