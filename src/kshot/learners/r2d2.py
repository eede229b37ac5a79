"""Ridge regression differentiable discriminator: R2-D2 (Bertinetto, Henriques, Torr and Vedaldi 2019)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kshot import seeding
from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.learners.base import NO_LABEL, FeatureLearner, learners
from kshot.solvers.heads import LinearHead, one_hot
from kshot.solvers.scaled import LearntRidge, ScaledHead

_SHOTS_DRAW, _WAYS_DRAW = 1 << 22, (1 << 22) + 1  # of a task's key; apart from those of augmentation and dropout


@learners.register("r2d2")
class R2D2(FeatureLearner):
    """Ridge regression onto one-hot labels, with learnt penalty, scale and bias (Bertinetto et al. 2019).

    ::

        for each task i of the batch, with support features X (n, D) and one-hot labels Y (n, N):
            W = X' (X X' + n l2 I)^-1 Y                                      (Woodbury's form, eqs. 4-5)
            scores = scale * q W + bias  of a query image with features q    (eq. 6)
            loss_i = mean cross-entropy of the query images
        theta, l2, scale, bias = optimiser's step along the gradient of  mean over i of  loss_i
        test task: W and scores as above

    With random shots, a training task uses of each class a number of its K sampled support images that is drawn
    uniformly from 1..K, the same for all classes, and asks for the rest along with the query images: so one network
    learns for all shots, every task has as many images as any other, and none is wasted. The number of ways can be
    drawn as well; the release, which takes more images of fewer classes, fixes it in the experiments that are quoted.
    The bias is one number for all classes, as in the paper; it would tell in other losses than the cross-entropy,
    whose probabilities it leaves alone.

    The paper does not say where the three numbers start. The release divides X and Y by the root of n, which the paper
    does not mention and which is the n before l2 above; it fixes the penalty at 50 unless told otherwise, starts the
    scale at 10 on CIFAR-FS and at 1e-4 on mini-ImageNet, and adds a feature of ones to X, which is left out here. 50
    suits the many and large features of the paper's network: with small ones the head is a class's sum of features.

    Parameters
    ----------
    l2
        Where the learnt penalty starts, for each support image.
    scale
        Where the learnt scale of the scores starts.
    bias
        Where the learnt bias of the scores starts.
    random_shots
        Draw the shots of each training task, up to those that are sampled.
    fewest_ways
        Draw the ways of each training task, from this number up to those that are sampled, whose further classes the
        task leaves out; None for all that are sampled. The release, if it draws, draws from 5.
    """

    parameters_without_effect = ("adaptation.bias",)  # one number for all classes leaves probabilities as they are
    meta_batch = 1
    adaptation: ScaledHead

    def __init__(
        self,
        backbone: Backbone,
        *,
        l2: float = 1.0,
        scale: float = 10.0,
        bias: float = 0.0,
        random_shots: bool = True,
        fewest_ways: int | None = None,
        normalize_over: Literal["task", "batch"] = "task",
    ) -> None:
        if fewest_ways is not None and fewest_ways < 2:
            raise ConfigError(f"fewest_ways is {fewest_ways}, but must be at least 2, or null for no random ways")
        head = ScaledHead(LearntRidge(l2), scale=scale, bias=bias)
        super().__init__(backbone, adaptation=head, normalize_over=normalize_over)
        self.random_shots, self.fewest_ways = random_shots, fewest_ways

    def training_scores(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Scores (B, S+T, N) of all images, and labels (B, S+T).

        The label is `NO_LABEL` for images that the head was fitted to and for those of classes that the task leaves
        out, whose scores are -inf.
        """
        images = episodes.images()
        with self.training_pass(episodes):
            features = self.features(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        ways, labels = self.ways_used(episodes), episodes.labels()
        inside = labels < ways.unsqueeze(1)
        used = self.support_used(episodes) & inside[:, : episodes.support_labels.shape[1]]
        head = self._head_of_some(features[:, : used.shape[1]], episodes.support_labels, episodes.ways, used)
        fitted = F.pad(used, (0, labels.shape[1] - used.shape[1]))
        left_out = torch.arange(episodes.ways, device=ways.device) >= ways.view(-1, 1, 1)
        scores = head.scores(features).masked_fill(left_out, -torch.inf)
        return scores, labels.masked_fill(fitted | ~inside, NO_LABEL)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean over tasks of the mean cross-entropy of a task's images that have a label."""
        losses = F.cross_entropy(scores.mT, labels, ignore_index=NO_LABEL, reduction="none")
        return (losses.sum(1) / (labels != NO_LABEL).sum(1)).mean()

    def ways_used(self, episodes: Episodes) -> Tensor:
        """(B,) how many classes take part in a training task: the first so many, since their order is random.

        Parameters
        ----------
        episodes
            A batch of B training tasks.
        """
        fewest = episodes.ways if self.fewest_ways is None else min(self.fewest_ways, episodes.ways)
        ways = fewest + seeding.below(episodes.keys, _WAYS_DRAW, episodes.ways - fewest + 1)
        return torch.from_numpy(ways).to(episodes.classes.device)

    def _head_of_some(self, features: Tensor, labels: Tensor, ways: int, used: Tensor) -> LinearHead:
        """The head of the support images (B, S) that are `used`, a number that may differ between tasks."""
        # A feature of zeros adds nothing to X X'. With X / sqrt(share) in the place of X, n being share * S, the
        # penalty S l2 of all images is that of the n, and the solution is sqrt(share) times theirs.
        root = used.to(features.dtype).mean(1).sqrt().view(-1, 1, 1)
        head = self.adaptation.head(features * used.unsqueeze(-1) / root, labels, ways)
        return LinearHead(head.weight / root, head.bias)

    def support_used(self, episodes: Episodes) -> Tensor:
        """(B, S) whether a support image is one that the head of its training task is fitted to.

        Parameters
        ----------
        episodes
            A batch of B training tasks.
        """
        labels = episodes.support_labels
        if not self.random_shots:
            return torch.ones_like(labels, dtype=torch.bool)
        sampled = max(1, labels.shape[1] // episodes.ways)
        shots = 1 + seeding.below(episodes.keys, _SHOTS_DRAW, sampled)
        members = one_hot(labels, episodes.ways, torch.int64)
        place = (members.cumsum(1) * members).sum(-1)  # 1 for the first image of each class, 2 for the second
        return place <= torch.from_numpy(shots).to(labels.device).unsqueeze(1)
