"""What `check_learner` notices: each class here breaks one contract."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones import Backbone
from kshot.data.episodes import Episodes
from kshot.learners import FeatureLearner, ProtoNet, learners
from kshot.solvers.heads import check_labels
from kshot.solvers.prototypes import NearestCentroid
from kshot.testing import check_learner


class Plain(FeatureLearner):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, adaptation=NearestCentroid())


class ByPosition(Plain):
    def __init__(self, backbone: Backbone, scale: float = 1.0) -> None:
        super().__init__(backbone)


class TooFewScores(Plain):
    def scores(self, episodes: Episodes) -> Tensor:
        return super().scores(episodes)[:, :-1]


class Random(Plain):
    def scores(self, episodes: Episodes) -> Tensor:
        scores = super().scores(episodes)
        return scores + torch.rand_like(scores)


class AnotherLoss(Plain):
    def accumulate_gradients(self, episodes: Episodes) -> dict[str, Tensor]:
        measured = super().accumulate_gradients(episodes)
        return measured | {"loss": measured["loss"] * 2}


class Labels(Plain):
    def scores(self, episodes: Episodes) -> Tensor:
        return super().scores(episodes) + torch.arange(episodes.ways)


class Order(Plain):
    def scores(self, episodes: Episodes) -> Tensor:
        first = episodes.support[:, :1].flatten(1).mean(1)
        return (1 + first.square()).view(-1, 1, 1) * super().scores(episodes)


class Shapes(Plain):
    """Takes for granted that every class has as many support images."""

    def scores(self, episodes: Episodes) -> Tensor:
        check_labels(episodes.support_labels, episodes.ways)
        labels = torch.arange(episodes.ways).repeat_interleave(-(-episodes.support.shape[1] // episodes.ways))
        given = labels[: episodes.support.shape[1]].expand_as(episodes.support_labels)
        return super().scores(replace(episodes, support_labels=given))


class Idle(Plain):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.unused = nn.Parameter(torch.ones(1))


class Summed(Plain):
    def objective(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        loss, correct = super().objective(episodes)
        return episodes.tasks * loss, correct


class Joint(Plain):
    """Normalises features by the batch that they are in."""

    def features(self, images: Tensor) -> Tensor:
        features = super().features(images)
        return features - features.mean(0)


class Inverted(Plain):
    """Scores in evaluation what it does not learn in training."""

    def scores(self, episodes: Episodes) -> Tensor:
        return super().scores(episodes) * (1 if self.training else -1)


class Mean(Plain):
    """Keeps a mean feature that starts as zeros: nothing tells whether it was computed."""

    start = 0.0

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.register_buffer("mean", torch.full((backbone.feature_size,), self.start))

    def features(self, images: Tensor) -> Tensor:
        return super().features(images) - self.mean.nan_to_num()

    def observe_training_split(self, split) -> None:
        self.mean.fill_(float(split.images.mean()))


class NeverComputed(Mean):
    start = torch.nan

    def observe_training_split(self, split) -> None:
        pass


class NotOfTheImages(Mean):
    start = torch.nan

    def observe_training_split(self, split) -> None:
        self.mean.fill_(1.0)


class Compiled(Plain):
    def scores(self, episodes: Episodes) -> Tensor:
        scores = super().scores(episodes)
        return scores if self.backbone._compiled_call_impl is None else scores + 1


@pytest.fixture
def scratch_registry(monkeypatch):
    """Classes that are registered within a test, and forgotten after it."""
    monkeypatch.setattr(learners, "_classes", dict(learners._classes))


@pytest.mark.usefixtures("scratch_registry")
@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ByPosition, "scale may be given by position; put \\* after backbone"),
        (TooFewScores, r"scores are \(6, 14, 3\); return \(tasks, queries, ways\)"),
        (Random, "two losses differ; draw random numbers in training from episodes.keys"),
        (AnotherLoss, "reports another loss than meta_loss"),
        (Labels, "declare follows_label_permutations = False"),
        (Order, "declare ignores_support_order = False"),
        (Shapes, "declare ignores_support_order = False|follows_label_permutations|go by the labels and not by shapes"),
        (Idle, "unused has no gradient"),
        (Summed, "are not the mean of those of the single tasks"),
        (Joint, "features change with the other images of the batch"),
        (Inverted, r"accuracy 0\.\d+ after 10 steps, not above 0\.8"),
        (Mean, "that starts as torch.nan"),
        (NeverComputed, "observe_training_split leaves a buffer as NaN"),
        (NotOfTheImages, "half of the training split gives the same statistic"),
        (Compiled, "torch.compile changes its scores"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_check_learner_names_the_contract_that_is_broken(cls, message):
    fresh = learners.register("broken")(type(cls.__name__, (cls,), {"__init__": cls.__init__, "__module__": __name__}))
    with pytest.raises(AssertionError, match=f"(?s){cls.__name__} breaks the contract .*({message})"):
        check_learner(fresh)


def test_check_learner_wants_a_registered_class():
    with pytest.raises(AssertionError, match=r"decorate the class with @learners\.register"):
        check_learner(type("Unnamed", (ProtoNet,), {}))
