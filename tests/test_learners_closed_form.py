"""MetaOptNet and R2-D2: drawn shots and ways, statistics, smoothing and options; their formulas: tests/independent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gradient_toys import features_of
from torch import nn

from kshot import evaluation
from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.errors import ConfigError
from kshot.learners import R2D2, MetaOptNet
from kshot.learners.base import NO_LABEL, accuracy
from kshot.solvers import Ridge, SupportVectorMachine, ridge


def backbone() -> Conv4:
    torch.manual_seed(0)
    return Conv4(8, in_channels=1, image_size=16)


def tasks(toy_data, shots: int = 4, count: int = 6) -> Episodes:
    sampler = EpisodeSampler(toy_data.train, TaskShape(3, shots, 5), seed=0)
    ready = prepare_images(sampler.episodes(np.arange(count)), toy_data.train.normalization)
    return ready.with_images(ready.support.double(), ready.query.double())


def test_random_shots_fit_the_head_to_some_and_ask_for_the_rest(toy_data) -> None:
    learner = R2D2(backbone(), l2=5.0).double()
    episodes = tasks(toy_data)
    used = learner.support_used(episodes)
    scores, labels = learner.training_scores(episodes)
    support, query = features_of(backbone().double(), episodes)
    losses, right, asked = [], 0, 0
    for task in range(episodes.tasks):
        mine, truth = used[task], episodes.support_labels[task]
        counts = truth[mine].bincount(minlength=3)
        assert (counts == counts[0]).all()
        assert counts[0] >= 1
        head = ridge(support[task : task + 1, mine], truth[None, mine], 3, l2=5.0 * int(mine.sum()))
        others = torch.cat([support[task, ~mine], query[task]])
        expected = 10.0 * head.scores(others[None])[0]
        wanted = torch.cat([truth[~mine], episodes.query_labels[task]])
        losses.append(nn.functional.cross_entropy(expected, wanted))
        right, asked = right + (expected.argmax(-1) == wanted).sum(), asked + len(wanted)
    assert len({int(row.sum()) for row in used}) > 1, "tasks of one batch differ in their shots"
    torch.testing.assert_close(learner.loss(scores, labels), torch.stack(losses).mean())
    assert accuracy(scores, labels).item() == pytest.approx(float(right / asked))


def test_random_ways_leave_the_further_classes_out_of_the_task(toy_data) -> None:
    learner = R2D2(backbone(), l2=5.0, random_shots=False, fewest_ways=2).double()
    episodes = tasks(toy_data)
    ways = learner.ways_used(episodes)
    assert set(ways.tolist()) == {2, 3}
    scores, labels = learner.training_scores(episodes)
    support, query = features_of(backbone().double(), episodes)
    losses = []
    for task, count in enumerate(ways.tolist()):
        mine, asked = episodes.support_labels[task] < count, episodes.query_labels[task] < count
        head = ridge(support[task, mine][None], episodes.support_labels[task, mine][None], count, l2=5.0 * 4 * count)
        expected = 10.0 * head.scores(query[task, asked][None])[0]
        torch.testing.assert_close(scores[task, 12:][asked][:, :count], expected)
        losses.append(nn.functional.cross_entropy(expected, episodes.query_labels[task, asked]))
        assert (labels[task] == NO_LABEL).sum() == 12 + 5 * (3 - count)
    torch.testing.assert_close(learner.loss(scores, labels), torch.stack(losses).mean())
    learner.accumulate_gradients(episodes)
    assert all(parameter.grad.isfinite().all() for parameter in learner.parameters())


def test_ways_are_uniform(toy_data) -> None:
    episodes = EpisodeSampler(toy_data.train, TaskShape(6, 1, 1), seed=0).episodes(np.arange(4000))
    ways = R2D2(backbone(), fewest_ways=3).ways_used(episodes)
    counts = ways.bincount(minlength=7)
    assert counts[:3].sum() == 0
    assert (counts[3:] - 1000).abs().max() < 120
    assert (R2D2(backbone(), fewest_ways=9).ways_used(episodes) == 6).all()


def test_shots_are_uniform_and_belong_to_the_task(toy_data) -> None:
    learner, episodes = R2D2(backbone()), tasks(toy_data)
    keys = EpisodeSampler(toy_data.train, TaskShape(3, 4, 5), seed=0).rows(np.arange(4000)).keys
    labels = episodes.support_labels[:1].expand(4000, -1)
    many = replace(episodes, support_labels=labels, classes=episodes.classes[:1].expand(4000, -1), keys=keys)
    shots = learner.support_used(many).sum(1) // 3
    counts = shots.bincount(minlength=5)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 120
    part = replace(many, support_labels=labels[7:9], classes=many.classes[7:9], keys=keys[7:9])
    assert (learner.support_used(part).sum(1) // 3 == shots[7:9]).all()


@pytest.mark.parametrize(("cls", "options"), [(MetaOptNet, {}), (R2D2, {"random_shots": False})])
def test_joint_statistics_are_those_of_all_images_of_a_step(toy_data, cls, options) -> None:
    episodes = tasks(toy_data)
    learner, network = cls(backbone(), normalize_over="batch", **options).double(), backbone().double()
    scores, _ = learner.training_scores(episodes)
    features = network(episodes.images().flatten(0, 1)).unflatten(0, (6, 27))
    head = learner.adaptation.head(features[:, :12], episodes.support_labels, 3)
    torch.testing.assert_close(scores[:, -15:], head.scores(features[:, 12:]))


def test_label_smoothing_gives_each_other_class_an_equal_share() -> None:
    learner = MetaOptNet(backbone(), label_smoothing=0.1)
    scores = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6).remainder(5).expand(2, -1)
    members = nn.functional.one_hot(labels, 5)
    target = 0.9 * members + 0.1 / 4 * (1 - members)
    expected = -(target * scores.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(learner.loss(scores, labels), expected)
    plain = MetaOptNet(backbone()).loss(scores, labels)
    torch.testing.assert_close(plain, nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten()))


@pytest.mark.parametrize(
    ("learner", "plain"),
    [
        (lambda: MetaOptNet(backbone()), SupportVectorMachine()),
        (lambda: MetaOptNet(backbone(), head="ridge"), Ridge(l2=50.0)),
    ],
    ids=["svm", "ridge"],
)
def test_evaluation_sees_what_was_learnt(toy_data, learner, plain) -> None:
    """Scores from cached features are those of images, with the scale: its own way is told from the plain head's."""
    trained = learner().double().eval()
    nn.init.constant_(trained.adaptation.scale, 2.5)
    episodes = tasks(toy_data)
    support, query = (trained.features(part.flatten(0, 1)) for part in (episodes.support, episodes.query))
    head = trained.adaptation.head(support.view(6, 12, -1), episodes.support_labels, 3)
    torch.testing.assert_close(head.scores(query.view(6, 15, -1)), trained.scores(episodes))
    unscaled = plain.head(support.view(6, 12, -1), episodes.support_labels, 3)
    torch.testing.assert_close(head.weight, 2.5 * unscaled.weight)
    own = evaluation.evaluate(trained.float(), toy_data.test, ways=3, shots=2, queries=4, tasks=8)
    assert own.own_adaptation
    assert own.adaptation == f"scaled-{plain.description}"
    assert not evaluation.evaluate(
        trained, toy_data.test, ways=3, shots=2, queries=4, tasks=8, adaptation=plain
    ).own_adaptation


def test_r2d2_learns_its_three_numbers(toy_data) -> None:
    learner = R2D2(backbone(), l2=2.0).double()
    learner.accumulate_gradients(tasks(toy_data))
    assert learner.adaptation.description == "scaled-ridge-l2=learnt"
    assert learner.adaptation.heads.log_l2.exp().item() == pytest.approx(2.0)
    assert learner.adaptation.heads.log_l2.grad
    assert learner.adaptation.scale.grad
    assert abs(learner.adaptation.bias.grad) < 1e-12, "the probabilities do not depend on it"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "tree"}, "head is 'tree'; choose one of: svm, ridge"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5, but must be at least 0 and below 0.5"),
        ({"label_smoothing": float("nan")}, "label_smoothing is nan"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1"),
        ({"c": 0.0}, "the C of a support vector machine is 0.0"),
        ({"diagonal_shift": -1.0}, "diagonal_shift is -1.0"),
        ({"head": "ridge", "l2": 0.0}, "l2 is 0.0"),
        ({"head": "svm", "l2": -5.0}, "l2 is -5.0"),
        ({"head": "ridge", "c": -5.0}, "the C of a support vector machine is -5.0"),
        ({"scale": 0.0}, "scale is 0.0, but must be positive"),
        ({"scale": float("nan")}, "scale is nan"),
    ],
)
def test_metaoptnet_refuses_impossible_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MetaOptNet(backbone(), **options)


def test_r2d2_refuses_impossible_options() -> None:
    with pytest.raises(ConfigError, match="fewest_ways is 1, but must be at least 2"):
        R2D2(backbone(), fewest_ways=1)
    with pytest.raises(ConfigError, match=r"l2 is 0\.0"):
        R2D2(backbone(), l2=0.0)
