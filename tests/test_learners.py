"""The contract tests: every registered learner passes them, untouched, by being registered."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from learner_toys import VARIANTS, build, kind_of, normalised, with_support
from torch import nn

from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.errors import ConfigError, DataError
from kshot.learners import R2D2, FeatureLearner, InitializationLearner, Learner, MultiTask, Supervised, learners
from kshot.training.checks import check_compile


@pytest.fixture(params=sorted([*learners, *VARIANTS]))
def name(request) -> str:
    return request.param


@pytest.fixture
def train_episodes(name, toy_data):
    """Three tasks (or, for learners of images, thirty images) as training sees them."""
    sampler = build(name).sampler(toy_data.train, TaskShape(3, 2, 4), seed=0)
    return lambda count=3: normalised(sampler.episodes(np.arange(count)), toy_data.train)


TRAINED: dict[str, Learner] = {}


@pytest.fixture
def trained(name, train_episodes) -> Learner:
    """The learner after a few steps on one batch; trained once, and with all tasks at once where it can."""
    if name not in TRAINED:
        options = {"tasks_at_once": 1000} if issubclass(kind_of(name), InitializationLearner) else {}
        learner = build(name, **options)
        batch = train_episodes(4 * learner.meta_batch)
        optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
        for _ in range(10):
            optimizer.zero_grad()
            learner.accumulate_gradients(batch)
            optimizer.step()
        TRAINED[name] = learner
    return copy.deepcopy(TRAINED[name])


@pytest.fixture
def unseen_episodes(toy_data):
    sampler = EpisodeSampler(toy_data.test, TaskShape(3, 3, 5), seed=0)
    return normalised(sampler.episodes(np.arange(6)), toy_data.test)


def test_scores_have_a_row_for_every_query_image(name, unseen_episodes):
    scores = build(name).eval().scores(unseen_episodes)
    assert scores.shape == (6, 15, 3)
    assert scores.isfinite().all()


def test_same_seed_gives_the_same_numbers(name, train_episodes, unseen_episodes):
    first, second = build(name), build(name)
    torch.testing.assert_close(first.meta_loss(train_episodes()), second.meta_loss(train_episodes()), rtol=0, atol=0)
    results = [learner.eval().scores(unseen_episodes) for learner in (first, second)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_scores_follow_a_permutation_of_the_labels(name, unseen_episodes):
    learner, permutation = build(name).double().eval(), torch.tensor([2, 0, 1])
    if not learner.follows_label_permutations:
        pytest.skip("its head has a row of its own for each label number, and says so")
    episodes = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    renamed = Episodes(
        episodes.support,
        permutation[episodes.support_labels],
        episodes.query,
        permutation[episodes.query_labels],
        episodes.classes,
        episodes.keys,
    )
    torch.testing.assert_close(
        learner.scores(renamed)[..., permutation], learner.scores(episodes), rtol=1e-5, atol=1e-5
    )


def test_scores_do_not_depend_on_the_order_of_the_support_images(name, unseen_episodes):
    learner, order = build(name).double().eval(), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    if not learner.ignores_support_order:
        pytest.skip("its mini-batches go by the place of an image in the support set, and it says so")
    episodes = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    shuffled = with_support(episodes, order)
    torch.testing.assert_close(learner.scores(shuffled), learner.scores(episodes), rtol=1e-5, atol=1e-5)


def test_support_sets_may_be_unequal(trained, unseen_episodes):
    keep = torch.tensor([0, 1, 2, 3, 4, 6, 7])  # three, two and two images of the three classes
    episodes = with_support(unseen_episodes, keep)
    accuracy = (trained.eval().scores(episodes).argmax(-1) == episodes.query_labels).float().mean()
    assert accuracy > 0.5


def test_training_beats_chance_clearly_on_separable_tasks(name, trained, train_episodes, unseen_episodes):
    batch = train_episodes(24)
    assert trained.train().meta_loss(batch) < build(name).meta_loss(batch)
    scores = trained.eval().scores(unseen_episodes)
    least = 0.7 if name == "matching-net-full-context" else 0.8  # whose recurrent networks learn more slowly
    assert (scores.argmax(-1) == unseen_episodes.query_labels).float().mean() > least


def test_saved_and_loaded_learner_gives_equal_scores(name, unseen_episodes, tmp_path):
    learner, other = build(name), build(name)
    for parameter in learner.parameters():
        nn.init.normal_(parameter, std=0.1)
    torch.save(learner.state_dict(), tmp_path / "learner.pt")
    other.load_state_dict(torch.load(tmp_path / "learner.pt", weights_only=True))
    results = [each.eval().scores(unseen_episodes) for each in (learner, other)]
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_gradients_reach_every_parameter_that_learns_and_no_other(name, train_episodes):
    # a group of initialisations that no task is assigned to gets no gradient, which is the algorithm
    learner = build(name, **{"groups": 1} if "groups" in inspect.signature(kind_of(name)).parameters else {}).double()
    batch = train_episodes(12)
    learner.accumulate_gradients(batch.with_images(batch.support.double(), batch.query.double()))
    for which, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, which
        elif which.endswith(".0.bias") and "backbone" in which:
            assert parameter.grad is not None, "but BatchNorm takes the bias of a convolution out again"
        elif isinstance(learner, R2D2) and which == "adaptation.bias":
            assert parameter.grad.abs() < 1e-12, "one number for all classes leaves probabilities as they are"
        else:
            assert parameter.grad is not None, which
            assert parameter.grad.any(), which


def test_gradients_equal_those_of_a_plain_loop_over_tasks(name, train_episodes):
    """Per-task BatchNorm in one batched pass is what the network gives to each task alone, gradients averaged."""
    batch = train_episodes()
    if batch.support.shape[1] < 2:
        pytest.skip("learns single images, whose statistics are joint by definition")
    batched, looped = build(name).double(), build(name).double()
    batch = batch.with_images(batch.support.double(), batch.query.double())
    batched.accumulate_gradients(batch)
    for task in range(batch.tasks):
        looped.accumulate_gradients(batch.part(task, task + 1))
    for parameter in looped.parameters():
        if parameter.grad is not None:
            parameter.grad /= batch.tasks
    for (which, expected), actual in zip(looped.named_parameters(), batched.parameters()):
        torch.testing.assert_close(
            actual.grad, expected.grad, rtol=1e-9, atol=1e-11, msg=lambda m, w=which: f"{w}: {m}"
        )


def test_options_are_remembered_and_rebuild_the_learner(name):
    learner = build(name)
    again = learners[learners.name_of(learner)](**learner.options)
    assert again.options == learner.options
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in learner.state_dict().items()
    }


def test_features_of_an_image_do_not_depend_on_its_batch(name, unseen_episodes):
    learner = build(name).double().eval()
    if not isinstance(learner, FeatureLearner):
        pytest.skip("adapts its weights to a task")
    images = unseen_episodes.query.double().flatten(0, 1)
    torch.testing.assert_close(learner.features(images)[3:5], learner.features(images[3:5]))


def assert_same_gradients(learner: Learner, reference: Learner, batch: Episodes) -> None:
    torch.testing.assert_close(learner.accumulate_gradients(batch), reference.accumulate_gradients(batch))
    for (which, expected), actual in zip(reference.named_parameters(), learner.parameters()):
        if which.endswith(".0.bias") and getattr(reference, "inner_optimizer", None) == "adam":
            continue  # BatchNorm takes the bias of a convolution out again: Adam magnifies what rounding leaves of it
        torch.testing.assert_close(
            actual.grad, expected.grad, rtol=1e-9, atol=1e-11, msg=lambda m, w=which: f"{w}: {m}"
        )


def test_both_execution_strategies_give_the_same_gradients_and_scores(name, train_episodes, unseen_episodes):
    """One task after the other through ordinary kernels, or all at once under vmap."""
    if not issubclass(kind_of(name), InitializationLearner):
        pytest.skip("does not adapt weights")
    batch = train_episodes()
    batch = batch.with_images(batch.support.double(), batch.query.double())
    unseen = unseen_episodes.with_images(unseen_episodes.support.double(), unseen_episodes.query.double())
    one, all_ = (build(name, tasks_at_once=count).double() for count in (1, 6))
    assert_same_gradients(all_, one, batch)
    for learner in (one, all_):
        learner.eval()
    for statistics in one.statistics_offered:
        one.statistics_at_test = all_.statistics_at_test = statistics
        torch.testing.assert_close(one.scores(unseen), all_.scores(unseen), rtol=1e-9, atol=1e-11)


def test_compiling_the_backbone_changes_nothing_or_is_refused(name, unseen_episodes):
    learner = build(name)
    if not learner.can_compile:
        with pytest.raises(ConfigError, match="leave out compile"):
            check_compile(learner)
        return
    expected = learner.scores(unseen_episodes)
    learner.backbone.compile(backend="eager")
    torch.testing.assert_close(learner.scores(unseen_episodes), expected)


@pytest.mark.slow
def test_compiling_the_backbone_leaves_the_gradients_as_they_are(name, train_episodes):
    """With its backward pass traced, too, which the quick test leaves to autograd."""
    plain, compiled = build(name).double(), build(name).double()
    if not plain.can_compile:
        pytest.skip("is refused")
    torch.compiler.reset()
    compiled.backbone.compile(backend="aot_eager")
    batch = train_episodes()
    batch = batch.with_images(batch.support.double(), batch.query.double())
    assert_same_gradients(compiled, plain, batch)


def test_tasks_of_another_number_of_classes_are_refused(name, unseen_episodes):
    if not issubclass(kind_of(name), InitializationLearner):
        pytest.skip("learns tasks of any number of classes")
    with pytest.raises(ConfigError, match="5-way tasks and cannot learn 3-way"):
        build(name, ways=5).scores(unseen_episodes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0, 2, 2, 2, 2, 2, 2], "class 1 of task 4 has no support image"),
        ([0, 0, 0, 1, 1, 1, 2, 2, 3], r"task 4 has the support label 3, outside 0\.\.2"),
        ([0, 0, 0, 1, 1, 1, 2, 2, -1], r"task 4 has the support label -1, outside 0\.\.2"),
    ],
    ids=["missing", "too-large", "negative"],
)
def test_support_sets_that_do_not_show_every_class_are_refused(name, unseen_episodes, labels, message):
    learner = build(name)
    unseen_episodes.support_labels[4] = torch.tensor(labels)
    with pytest.raises(DataError, match=message):
        learner.eval().scores(unseen_episodes)
    if isinstance(learner, MultiTask | Supervised):
        return  # their training does not tell support from query
    for train in (learner.train().accumulate_gradients, learner.meta_loss):
        with pytest.raises(DataError, match=message):
            train(unseen_episodes)


def test_tasks_without_support_images_are_refused(name, unseen_episodes):
    with pytest.raises(DataError, match=r"no support image|support images"):
        build(name).eval().scores(with_support(unseen_episodes, torch.arange(0)))


def test_no_training_classes_are_refused(name):
    if "num_classes" not in inspect.signature(kind_of(name)).parameters:
        pytest.skip("does not ask for their number")
    with pytest.raises(ConfigError, match="num_classes is 0, but must be positive"):
        build(name, num_classes=0)


def test_misspelt_statistics_are_refused(name):
    if "statistics" not in inspect.signature(kind_of(name)).parameters:
        pytest.skip("has no such option")
    with pytest.raises(ConfigError, match="statistics is 'Joint'; choose one of: task, joint"):
        build(name, statistics="Joint")
