"""The estimate against the truth, on features whose truth is known; small classes, probabilities, many classes."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import stats

from kshot.photos import FewShotClassifier, expected_calibration_error
from kshot.photos.calibration import fitted_temperature
from kshot.photos.estimate import LeftOut, left_out_scores, on_other_days, stratified_rounds, wilson
from kshot.photos.examples import Examples
from kshot.photos.heads import balanced_head
from kshot.solvers import Cosine, LogisticRegression, NearestCentroid, Ridge, SupportVectorMachine

UNEQUAL = (2, 10, 10, 10, 10)
QUERIES = 40


def made(generator, sizes, *, noise=1.2, dimension=64):
    """Features of unit length: examples (S, D), their labels, and QUERIES new ones per class with theirs."""
    centres = generator.normal(size=(len(sizes), 1, dimension))

    def sample(counts):
        rows = np.concatenate(
            [c + noise * generator.normal(size=(n, dimension)) * 2 for c, n in zip(centres, counts)]
        ).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.repeat(np.arange(len(counts)), counts)

    return *sample(sizes), *sample([QUERIES] * len(sizes))


def alone(labels):
    """Every example a series of its own."""
    return np.arange(len(labels))


def without(rows, examples, labels, new, truth):
    """The accuracy on new ones of what is learnt without these rows of the examples."""
    return FewShotClassifier().fit(np.delete(examples, rows, 0), np.delete(labels, rows)).score(new, truth)


@pytest.mark.parametrize("sizes", [(5,) * 5, (3,) * 8, (3, 5, 11, 5, 11), UNEQUAL])
def test_estimate_is_unbiased_within_its_interval(sizes):
    """Unbiased for heads that know one example less of each class, as those do that are asked for left-out examples."""
    generator = np.random.default_rng(0)
    errors, covered, held = [], [], []
    for _ in range(60):
        examples, labels, new, truth = made(generator, sizes, noise=0.9)
        classifier = FewShotClassifier().fit(examples, labels)
        estimate, accuracy = classifier.estimate(), classifier.score(new, truth)
        assert estimate.tried == sum(sizes)
        with_fewer = np.mean(
            [without(rows, examples, labels, new, truth) for rows in stratified_rounds(labels, alone(labels), 9)[:4]]
        )
        errors.append(estimate.accuracy - with_fewer)
        covered.append(estimate.low <= with_fewer <= estimate.high)
        held.append(estimate.low <= accuracy)
    assert 0.5 < accuracy < 0.995, "a task that says something"
    assert abs(np.mean(errors)) < 0.025
    assert np.mean(covered) >= 0.85
    assert np.mean(held) >= 0.9, "one example more of each class makes it better, not worse"


@pytest.mark.parametrize(
    "head", [LogisticRegression(c=10), Ridge(l2=0.1), SupportVectorMachine(c=1.0), NearestCentroid(), Cosine()]
)
def test_small_classes_are_recognised(head):
    """Recall of the class with 2 examples, next to that with equally few of each, and without balance."""
    generator = np.random.default_rng(0)
    balanced, plain, fair = [], [], []
    for _ in range(30):
        examples, labels, new, truth = made(generator, UNEQUAL, noise=0.8)
        new = torch.from_numpy(new[truth == 0])[None]
        support, of = torch.from_numpy(examples)[None], torch.from_numpy(labels)[None]
        few = torch.from_numpy(np.concatenate([np.flatnonzero(labels == way)[:2] for way in range(5)]))
        for recalls, fitted in (
            (balanced, balanced_head(head, support, of, 5)),
            (plain, head.head(support, of, 5)),
            (fair, head.head(support[:, few], of[:, few], 5)),
        ):
            recalls.append((fitted.scores(new).argmax(-1) == 0).double().mean().item())
    assert np.mean(balanced) > np.mean(fair) - 0.08
    if isinstance(head, LogisticRegression | Ridge | SupportVectorMachine):
        assert np.mean(plain) < np.mean(balanced) - 0.1, "without balance the class is avoided"


def test_logistic_scores_are_those_of_equally_likely_classes():
    """With as many examples of each class as there are, only the biases differ, by the log of the shares."""
    examples, labels, new, _ = made(np.random.default_rng(0), (2, 4, 8))
    support, of = torch.from_numpy(examples)[None], torch.from_numpy(labels)[None]
    head, query = LogisticRegression(c=10), torch.from_numpy(new)[None]
    plain, balanced = head.head(support, of, 3).scores(query), balanced_head(head, support, of, 3).scores(query)
    difference = (plain - balanced)[0]
    expected = torch.tensor([2.0, 4.0, 8.0]).log()
    torch.testing.assert_close(difference - difference[:, :1], (expected - expected[0]).expand_as(difference))


def test_rounds_leave_out_one_of_each_class():
    labels = np.repeat([0, 1, 2], [3, 1, 5])
    rounds = np.stack(stratified_rounds(labels, alone(labels), seed=0))
    assert (labels[rounds] == [0, 2]).all(), "one of each class, and never the only one"
    assert set(rounds.ravel()) == {0, 1, 2, 4, 5, 6, 7, 8}
    assert len(rounds) == 25, "five draws of the five rounds that the largest class takes"
    np.testing.assert_array_equal(rounds, np.stack(stratified_rounds(labels, alone(labels), seed=0)))
    assert (rounds != np.stack(stratified_rounds(labels, alone(labels), seed=1))).any()
    assert stratified_rounds(np.arange(4), np.arange(4), seed=0) == []


def test_rounds_leave_out_whole_series():
    """Series {0, 1}, {2} of class 0; one series of class 1, whose examples are left out one by one; one of class 2."""
    labels, series = np.repeat([0, 1, 2], [3, 2, 1]), np.array([5, 5, 7, 2, 2, 9])
    rounds = {tuple(rows) for rows in stratified_rounds(labels, series, seed=0)}
    assert rounds == {(*first, second) for first in ((0, 1), (2,)) for second in (3, 4)}


def test_left_out_scores_equal_one_by_one():
    features, labels, _, _ = made(np.random.default_rng(0), (1, 2, 4))
    series = np.array([0, 1, 2, 3, 3, 4, 5])
    plain = features + np.float32(0.1) * np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    examples = Examples(*map(torch.from_numpy, (features, plain, labels, series)), list("abcdefg"))
    head = LogisticRegression(c=10)
    found = left_out_scores(head, examples, 3, seed=3)
    expected = {}
    for some in stratified_rounds(labels, series, 3):
        rest = np.setdiff1d(np.arange(len(labels)), some)
        fitted = balanced_head(head, examples.features[None, rest], examples.labels[None, rest], 3)
        for row, scores in zip(some, fitted.scores(examples.plain[None, some])[0]):
            expected.setdefault(row, []).append(scores)
    assert len(found.scores) == sum(map(len, expected.values()))
    for row, scores in expected.items():
        answers = found.scores[found.examples == row]
        torch.testing.assert_close(answers.sort(0).values, torch.stack(scores).sort(0).values, atol=1e-5, rtol=0)
    assert torch.equal(found.labels, examples.labels[found.examples])


def test_interval_is_wilsons():
    for right, count in ((0, 5), (7, 12), (19, 19)):
        expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
        np.testing.assert_allclose(wilson(right / count, count), (expected.low, expected.high), atol=1e-9)


def test_interval_for_other_days_is_clopper_and_pearsons_of_fewer_than_sixty():
    for right, count in ((0, 5), (7, 12), (19, 20), (30, 30)):
        expected = stats.binomtest(right, count).proportion_ci(0.95, method="exact")
        many = count / (1 - count / 60)  # count for as much as `count` of one occasion
        np.testing.assert_allclose(on_other_days(right / count, many), (expected.low, expected.high), atol=1e-9)
    low, high = on_other_days(0.9, 1e9)
    expected = stats.binomtest(54, 60).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=1e-6)


def test_lines_of_classes():
    examples, labels, _, _ = made(np.random.default_rng(0), (4, 4, 1))
    estimate = FewShotClassifier().fit(examples, np.array(["cat", "dog", "yak"])[labels]).estimate()
    assert [(each.name, each.examples) for each in estimate.classes] == [("cat", 4), ("dog", 4)]
    assert estimate.accuracy == pytest.approx(np.mean([each.accuracy for each in estimate.classes]))
    assert str(estimate.classes[0]).startswith("cat: ")
    assert FewShotClassifier().fit(np.eye(3), [0, 1, 2]).estimate() is None


def test_temperature_is_found():
    """Scores whose softmax at temperature 2 IS the chance of each class."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    found = fitted_temperature(LeftOut(2 * logits, torch.zeros(4000), torch.arange(4000), labels, rounds=1))
    assert found == pytest.approx(2, rel=0.08)


def test_calibration_error():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    assert expected_calibration_error(probabilities, [0, 1, 1, 1]) == pytest.approx((0.45 + 0.35) / 2)


def test_probabilities_are_calibrated():
    generator = np.random.default_rng(0)
    before, after = [], []
    for _ in range(15):
        examples, labels, new, truth = made(generator, (5,) * 5)
        classifier = FewShotClassifier().fit(examples, labels)
        scores = torch.from_numpy(classifier.decision_function(new))
        before.append(expected_calibration_error(scores.softmax(1).numpy(), truth))
        after.append(expected_calibration_error(classifier.predict_proba(new), truth))
    assert np.mean(after) < 0.5 * np.mean(before)


def test_many_classes_are_approximated_well(monkeypatch):
    examples, labels, new, _ = made(np.random.default_rng(0), (3,) * 60)
    support, of = torch.from_numpy(examples)[None], torch.from_numpy(labels)[None]
    query, head = torch.from_numpy(new)[None], LogisticRegression(c=10)
    exact = balanced_head(head, support, of, 60).scores(query).softmax(-1)
    monkeypatch.setattr("kshot.photos.heads._LARGE", 0)
    near = balanced_head(head, support, of, 60).scores(query).softmax(-1)
    assert (exact - near).abs().max() < 5e-3
    assert not torch.equal(exact, near)


@pytest.mark.slow
def test_a_thousand_classes_take_less_than_a_minute():
    examples, labels, _, _ = made(np.random.default_rng(0), (3,) * 1000, noise=0.5, dimension=1280)
    start = time.process_time()  # of one thread, see conftest.py: the clock would count other programs, too
    estimate = FewShotClassifier().fit(examples, labels).estimate()
    assert time.process_time() - start < 60
    assert estimate.tried == 3000
