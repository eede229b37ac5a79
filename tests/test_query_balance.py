"""Unbalanced query sets: the same support images, shares of Dirichlet's law, and results that say so."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.query_balance import UnbalancedSampler, whole_shares
from kshot.data.tasks import task_sampler
from kshot.errors import ConfigError, DataError
from kshot.evaluation import compare, evaluate, extract_features
from kshot.evaluation.plan import plan_evaluation
from kshot.evaluation.results import Evaluation
from kshot.learners import MAML, MultiTask
from kshot.report.rows import Row
from kshot.report.tables import table
from kshot.solvers import BDCSPN, PTMAP, CentredCentroid, Cosine

SHAPE, NUMBERS = TaskShape(3, 2, 4), np.arange(400)


@pytest.fixture
def split(toy_split):
    return toy_split([24] * 6, name="test", size=16)


@pytest.fixture
def learner() -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)


@pytest.mark.parametrize(("balance", "queries"), [("dirichlet", 12), ("single", 1)])
def test_support_images_are_those_of_the_balanced_tasks(split, balance, queries):
    balanced = EpisodeSampler(split, SHAPE, seed=3).rows(NUMBERS)
    rows = UnbalancedSampler(split, SHAPE, balance=balance, seed=3).rows(NUMBERS)
    np.testing.assert_array_equal(rows.support, balanced.support)
    np.testing.assert_array_equal(rows.classes, balanced.classes)
    support_labels, labels = rows.labels()
    assert (support_labels.shape, labels.shape, rows.query.shape) == ((400, 6), (400, queries), (400, queries))
    owner = np.searchsorted(split.starts, rows.query, side="right") - 1
    np.testing.assert_array_equal(owner, np.take_along_axis(rows.classes, labels, 1))
    for task in range(20):
        everything = [*rows.support[task].reshape(-1), *rows.query[task]]
        assert len(set(everything)) == len(everything), "no image is twice in a task"
    alone = UnbalancedSampler(split, SHAPE, balance=balance, seed=3).rows(np.asarray([7]))
    np.testing.assert_array_equal(alone.query[0], rows.query[7])


def test_shares_follow_dirichlets_law_of_concentration_two(toy_split):
    """The share of one of three classes is Beta(2, 4); 300 queries round little."""
    split = toy_split([310] * 3, name="test", size=4)
    labels = UnbalancedSampler(split, TaskShape(3, 1, 100), balance="dirichlet", seed=0).rows(NUMBERS).labels()[1]
    shares = (labels == 1).mean(1)
    assert scipy.stats.kstest(shares, scipy.stats.beta(2, 4).cdf).pvalue > 0.01
    assert scipy.stats.kstest(shares, scipy.stats.beta(1, 2).cdf).pvalue < 1e-6


def test_a_single_query_is_of_every_class_as_often(split):
    labels = UnbalancedSampler(split, SHAPE, balance="single", seed=0).rows(np.arange(3000)).labels()[1]
    assert scipy.stats.chisquare(np.bincount(labels[:, 0], minlength=3)).pvalue > 0.01


def test_shares_are_rounded_to_whole_numbers_by_largest_remainders():
    shares = whole_shares(np.asarray([[0.5, 0.26, 0.24], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]), 10)
    assert shares.tolist() == [[5, 3, 2], [10, 0, 0], [4, 3, 3]]


def test_images_that_one_class_may_need_are_asked_for(split):
    with pytest.raises(DataError, match=r"24 images, but 2 shots \+ 60 queries need 62"):
        UnbalancedSampler(split, TaskShape(3, 2, 20), balance="dirichlet", seed=0)
    with pytest.raises(ConfigError, match="query_balance is 'skewed'; choose one of: balanced, dirichlet, single"):
        task_sampler(split, SHAPE, seed=0, query_balance="skewed")


@pytest.mark.parametrize("balance", ["dirichlet", "single"])
def test_results_name_the_balance(learner, split, balance, tmp_path):
    options = {"ways": 3, "shots": 2, "queries": 4, "tasks": 30, "adaptation": "cosine"}
    balanced, other = (evaluate(learner, split, **options, query_balance=kind) for kind in ("balanced", balance))
    assert other.protocol.query_balance == balance
    words = {"dirichlet": "12 queries in Dirichlet proportions", "single": "a single query"}
    assert words[balance] in str(other)
    assert balanced.save(tmp_path) != other.save(tmp_path)
    assert Evaluation.load(other.save(tmp_path)).protocol == other.protocol
    with pytest.raises(ConfigError, match=r"different tasks \(they differ in query_balance\)"):
        compare(balanced, other)
    if balance == "single":
        assert set(other.values) <= {0.0, 1.0}


def test_accuracy_on_unbalanced_queries_is_that_of_the_images(learner, split):
    """Cosine to class means, on the task's images themselves."""
    measured = evaluate(
        learner, split, ways=3, shots=2, queries=4, tasks=10, adaptation="cosine", query_balance="dirichlet"
    )
    sampler = UnbalancedSampler(split, SHAPE, balance="dirichlet", seed=0)
    episodes = prepare_images(sampler.episodes(np.arange(10)), split.normalization)
    with torch.no_grad():
        right = Cosine().scores(learner.eval(), episodes).argmax(-1) == episodes.query_labels
    np.testing.assert_allclose(measured.values, right.double().mean(1))


def results_of(learner, split, *heads):
    return [evaluate(learner, split, ways=3, shots=2, queries=4, tasks=30, adaptation=head) for head in heads]


def test_a_comparison_says_which_heads_look_at_all_query_images(learner, split, tmp_path):
    alone, together, other = results_of(learner, split, Cosine(), BDCSPN(), PTMAP(steps=2))
    assert (alone.sees_queries, together.sees_queries) == (False, True)
    assert "looks at all query images of a task together" in repr(together)
    assert Evaluation.load(together.save(tmp_path)).transductive
    assert "one of the two looked at all query images together" in str(compare(together, alone))
    assert "looked at" not in str(compare(together, other))
    mixed = table([Row("cosine", [alone]), Row("bd-cspn", [together])], paired=True)
    assert mixed.columns["query images"] == ["one at a time", "all together"]
    assert "no ranking of methods" in str(mixed)
    assert "heads may exploit that. Measure with query_balance dirichlet" in str(mixed)
    assert [record["sees_queries"] for record in mixed.records] == ["false", "true"]
    same = table([Row("a", [together]), Row("b", [other])], paired=True)
    assert "query images" not in same.columns
    assert "no ranking" not in str(same)


def test_query_images_are_not_looked_at_together_and_one_by_one(split):
    learner = MAML(Conv4(8, in_channels=1, image_size=16), ways=3)
    with pytest.raises(ConfigError, match="looks at all query images together, and inductive statistics at one"):
        plan_evaluation(
            learner,
            split,
            ways=3,
            shots=1,
            queries=1,
            tasks=2,
            seed=0,
            within_domain=None,
            adaptation=BDCSPN(),
            statistics="inductive",
        )


def test_the_mean_of_the_training_images_is_computed_if_a_head_lacks_it(learner, toy_data):
    options = {"ways": 3, "shots": 1, "queries": 4, "tasks": 40}
    mean = extract_features(learner, toy_data.train).mean(0)
    by_hand = evaluate(learner, toy_data.test, **options, adaptation=CentredCentroid().centred_at(mean))
    computed = evaluate(learner, toy_data, **options, adaptation="simpleshot")
    np.testing.assert_array_equal(computed.values, by_hand.values)
    assert computed.adaptation == "simpleshot"
    with pytest.raises(ConfigError, match="evaluate the whole dataset instead of one split"):
        evaluate(learner, toy_data.test, **options, adaptation="simpleshot")
