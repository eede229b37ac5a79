"""MatchingNet and TADAM: order, evaluation, co-training and options; their formulas: tests/independent."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kshot.backbones import Conv4, ResNet12
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import Episodes, EpisodeSampler, IntArray, TaskShape
from kshot.errors import ConfigError, DataError
from kshot.evaluation.protocol import evaluate
from kshot.learners import TADAM, MatchingNet, ProtoNet
from kshot.learners.tadam import CotrainingEpisodes
from kshot.solvers import Attention

WAYS, CLASSES = 3, 12
UNEQUAL = torch.tensor([8, 0, 3, 1, 4, 2])  # of nine support images: three, two and one of the classes, in no order


def backbone() -> Conv4:
    torch.manual_seed(0)
    return Conv4(8, in_channels=1, image_size=16)


@pytest.fixture(params=["equal", "unequal"])
def episodes(request, toy_data) -> Episodes:
    sampler = EpisodeSampler(toy_data.train, TaskShape(WAYS, 3, 4), seed=0)
    ready = prepare_images(sampler.episodes(np.arange(3)), toy_data.train.normalization)
    ready = ready.with_images(ready.support.double(), ready.query.double())
    if request.param == "equal":
        return ready
    return replace(ready, support=ready.support[:, UNEQUAL], support_labels=ready.support_labels[:, UNEQUAL])


def test_matching_net_says_when_the_order_of_the_support_images_matters(episodes: Episodes) -> None:
    order = torch.arange(episodes.support.shape[1]).flip(0)
    turned = replace(episodes, support=episodes.support[:, order], support_labels=episodes.support_labels[:, order])
    for full_context in (True, False):
        learner = MatchingNet(backbone(), full_context=full_context).double().eval()
        same = torch.allclose(learner.scores(turned), learner.scores(episodes), rtol=1e-9, atol=1e-11)
        assert same == learner.ignores_support_order == (not full_context)


@pytest.mark.parametrize("full_context", [True, False])
def test_matching_net_is_evaluated_on_features_of_each_image(toy_data, monkeypatch, full_context: bool) -> None:
    learner = MatchingNet(backbone(), full_context=full_context).double().eval()
    sampler = EpisodeSampler(toy_data.test, TaskShape(WAYS, 2, 3), seed=0)
    episodes = prepare_images(sampler.episodes(np.arange(20)), toy_data.test.normalization)
    scores = learner.scores(episodes.with_images(episodes.support.double(), episodes.query.double()))
    expected = (scores.argmax(-1) == episodes.query_labels).double().mean(1)
    images = []
    monkeypatch.setattr(Conv4, "forward", lambda *a, own=Conv4.forward: images.append(len(a[1])) or own(*a))
    learner.float()
    result = evaluate(learner, toy_data.test, ways=WAYS, shots=2, queries=3, tasks=20, seed=0)
    assert images[0] == 2, "two black ones, to see that the network takes them"
    assert sum(images[1:]) == len(toy_data.test.images)
    np.testing.assert_allclose(result.values, expected)
    assert result.adaptation == ("attention-full-context" if full_context else "attention")


def test_gradients_reach_the_context_and_equal_those_of_a_loop_over_tasks(episodes: Episodes) -> None:
    batched, looped = (MatchingNet(backbone(), full_context=True).double() for _ in range(2))
    looped.load_state_dict(batched.state_dict())
    batched.accumulate_gradients(episodes)
    for task in range(episodes.tasks):
        looped.accumulate_gradients(episodes.part(task, task + 1))
    for (name, expected), actual in zip(looped.named_parameters(), batched.parameters()):
        assert actual.grad.any() or ".0.bias" in name, f"{name}: BatchNorm alone takes a bias out again"
        torch.testing.assert_close(actual.grad, expected.grad / episodes.tasks, rtol=1e-9, atol=1e-11)


def test_attention_refuses_what_it_cannot_learn_from() -> None:
    with pytest.raises(ConfigError, match="reading_steps is 0"):
        MatchingNet(backbone(), reading_steps=0)
    with pytest.raises(ConfigError, match=r"reading_steps is 7.*choose full_context=true"):
        MatchingNet(backbone(), reading_steps=7)
    with pytest.raises(DataError, match="class 1 of task 0 has no support image"):
        Attention().head(torch.randn(1, 2, 4), torch.tensor([[0, 2]]), 3)


def tadam(**options: object) -> TADAM:
    network = backbone()
    torch.manual_seed(1)
    return TADAM(network, num_classes=CLASSES, **options).double()


@pytest.mark.parametrize("training", [True, False])
def test_tadam_at_the_identity_and_scale_1_is_protonet(episodes: Episodes, training: bool) -> None:
    learner = tadam(modulation_start=0.0, scale=1.0, cotraining_tasks=0).train(training)
    protonet = ProtoNet(backbone()).double().train(training)
    if training:
        torch.testing.assert_close(learner.training_scores(episodes), protonet.training_scores(episodes))
        torch.testing.assert_close(learner.meta_loss(episodes), protonet.meta_loss(episodes))
        for each in (learner, protonet):
            each.accumulate_gradients(episodes)
        for (name, actual), expected in zip(learner.backbone.named_parameters(), protonet.backbone.parameters()):
            torch.testing.assert_close(actual.grad, expected.grad, msg=lambda m, w=name: f"{w}: {m}")
    else:
        torch.testing.assert_close(learner.scores(episodes), protonet.scores(episodes))


def cotraining_episodes(toy_data, learner: TADAM, numbers: IntArray) -> CotrainingEpisodes:
    """Tasks of training as the learner sees them, in float64."""
    sampler = learner.sampler(toy_data.train, TaskShape(WAYS, 2, 4), seed=0)
    ready = prepare_images(sampler.episodes(numbers), toy_data.train.normalization)
    return ready.with_images(ready.support.double(), ready.query.double())


def test_tadam_adds_cotraining_beside_the_drawn_tasks_and_the_penalty(toy_data) -> None:
    learner = tadam(modulation_start=0.5, modulation_penalty=0.3, cotraining_tasks=100, cotraining_images=7)
    episodes = cotraining_episodes(toy_data, learner, np.arange(20, 26))
    assert 0 < episodes.drawn.sum() < 6, "some tasks count for co-training, others do not"
    scores, labels = learner.training_scores(episodes)
    expected = nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten()) + 0.3 / 2 * 8 * 0.5**2
    for task in np.flatnonzero(episodes.drawn):
        features = copy.deepcopy(learner.backbone)(episodes.query[task, -7:])
        loss = nn.functional.cross_entropy(learner.classifier(features), episodes.image_classes[task])
        expected = expected + loss / episodes.tasks
    torch.testing.assert_close(learner.meta_loss(episodes), expected)
    alone = learner.meta_loss(episodes.part(2, 4))
    torch.testing.assert_close(learner.accumulate_gradients(episodes.part(2, 4))["loss"], alone)


def test_tadam_cotrains_on_each_image_of_the_split_in_turn(toy_data) -> None:
    images, labels = toy_data.train.images, toy_data.train.labels
    sampler = tadam(cotraining_images=2).sampler(toy_data.train, TaskShape(WAYS, 1, 1), seed=0)
    episodes = sampler.episodes(np.arange(len(images) // 2))
    beside = [bytes(image) for image in episodes.query[:, WAYS:].flatten(0, 1).numpy()]
    known = dict(zip(map(bytes, np.asarray(images)), labels.tolist()))
    assert set(beside) == set(known)
    assert [known[image] for image in beside] == episodes.image_classes.flatten().tolist()


def test_tadam_cotrains_less_and_less(toy_data) -> None:
    sampler = tadam(cotraining_tasks=20 * 4000, cotraining_images=1).sampler(
        toy_data.train, TaskShape(WAYS, 1, 1), seed=0
    )
    shares = [sampler.episodes(first + np.arange(4000)).drawn.mean() for first in (0, 4000, 40_000, 80_000)]
    np.testing.assert_allclose(shares, [0.9, 0.9**2, 0.9**11, 0.9**21], atol=0.025)


def test_the_ramps_of_dropblock_count_a_task_of_tadam_once(episodes: Episodes) -> None:
    torch.manual_seed(0)
    network = ResNet12(widths=(2, 2, 2, 2), in_channels=1, image_size=16)
    learner = TADAM(network, num_classes=CLASSES).double()
    for _ in range(2):
        learner.accumulate_gradients(episodes)
    learner.eval().scores(episodes)
    counters = {name: int(value) for name, value in learner.state_dict().items() if name.endswith("training_tasks")}
    assert set(counters.values()) == {6}
    assert len(counters) == 2, "DropBlock's ramps in two stages"


def test_tadam_without_cotraining_knows_no_training_classes(episodes: Episodes) -> None:
    learner = tadam(cotraining_tasks=0)
    assert not any("classifier" in name for name in learner.state_dict())
    learner.accumulate_gradients(episodes)


@pytest.mark.parametrize(
    ("option", "value"),
    [("cotraining_tasks", -1), ("modulation_penalty", -1.0), ("scale", -1.0), ("scale", 0.0), ("scale", float("nan"))],
)
def test_tadam_refuses_impossible_options(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option} is {value}"):
        tadam(**{option: value})
