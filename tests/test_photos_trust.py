"""Refusals, sets, verdicts, shots needed and evaluations, on features whose truth is known."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from kshot.data.images import InputForm
from kshot.errors import ConfigError, DataError
from kshot.photos import CurvePoint, FewShotClassifier
from kshot.photos.examples import series_of
from kshot.photos.learning_curve import needed
from kshot.photos.rejection import familiarity, largest_rank, lowest_familiarity

NAMES = np.array(["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"])


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drawn(generator, counts, *, noise=0.2, dimension=32):
    """Features around one centre per class, and their class names; a class after the fifth is nobody's."""
    centres = unit(np.random.default_rng(7).normal(size=(len(NAMES), dimension)))
    labels = np.repeat(np.arange(len(counts)), counts)
    return unit(centres[labels] + noise * generator.normal(size=(len(labels), dimension))), NAMES[labels]


@pytest.fixture(scope="module")
def classifier():
    return FewShotClassifier().fit(*drawn(np.random.default_rng(0), [8] * 5))


def test_what_shows_none_of_the_classes_is_refused(classifier):
    known, _ = drawn(np.random.default_rng(1), [100] * 5)
    unknown, _ = drawn(np.random.default_rng(2), [0] * 5 + [100] * 3)
    refused_known = np.array([answer is None for answer in classifier.predict(known, reject=0.05)])
    refused_unknown = np.array([answer is None for answer in classifier.predict(unknown, reject=0.05)])
    assert refused_known.mean() == pytest.approx(0.05, abs=0.04)
    assert refused_unknown.mean() > 0.9
    more = np.array([answer is None for answer in classifier.predict(known, reject=0.3)])
    assert more.mean() == pytest.approx(0.3, abs=0.12)
    kept = classifier.predict(known, reject=0.05)[~refused_known]
    np.testing.assert_array_equal(kept, classifier.predict(known)[~refused_known])
    assert None not in classifier.predict(unknown)


def test_familiarity_is_the_definition():
    generator = torch.Generator().manual_seed(0)
    support, asked = torch.randn(1, 6, 4, generator=generator), torch.randn(1, 5, 4, generator=generator)
    labels = torch.tensor([[0, 1, 2, 0, 1, 0]])
    for row in range(5):
        cosines = []
        for way in range(3):
            rows = [vector / vector.norm() for vector, label in zip(support[0], labels[0]) if label == way]
            mean = sum(rows) / len(rows)
            cosines.append(float(asked[0, row] @ mean / asked[0, row].norm() / mean.norm()))
        second, first = sorted(cosines)[-2:]
        expected = first + 0.5 * (first - second)
        assert float(familiarity(asked, support, labels)[0, row]) == pytest.approx(expected, abs=1e-5)


def test_lowest_familiarity_refuses_the_share_of_a_normal_distribution():
    generator = torch.Generator().manual_seed(0)
    refused = []
    for _ in range(300):
        seen = torch.randn(12, generator=generator, dtype=torch.float64)
        lowest = lowest_familiarity(seen, torch.full((12,), 1 / 12, dtype=torch.float64), 12, 0.1)
        refused.append(float((torch.randn(50, generator=generator) < lowest).double().mean()))
    assert np.mean(refused) == pytest.approx(0.1, abs=0.015)


def test_sets_cover():
    images, names = drawn(np.random.default_rng(3), [80] * 5, noise=0.35)
    noisy = FewShotClassifier().fit(*drawn(np.random.default_rng(4), [10] * 5, noise=0.35))
    sizes = []
    for coverage in (0.7, 0.9):
        sets = noisy.predict_set(images, coverage=coverage)
        covered = np.mean([name in members for name, members in zip(names, sets)])
        assert covered == pytest.approx(coverage, abs=0.1) or covered > coverage
        assert covered <= 0.99
        assert [members[0] for members in sets] == noisy.predict(images).tolist()
        sizes.append(np.mean([len(members) for members in sets]))
    assert 1 <= sizes[0] < sizes[1] < 4
    assert all(len(members) == 5 for members in noisy.predict_set(images[:3], coverage=0.999)), "too few to say"


def test_largest_rank_is_the_conformal_quantile():
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], dtype=torch.float64)
    labels, weights = torch.tensor([0, 0, 0, 0]), torch.full((4,), 0.25, dtype=torch.float64)
    # of 1 - p: 0.1, 0.2, 0.4, 0.7, the ceil(5 * coverage)-th
    for coverage, expected in ((0.2, 0.1), (0.4, 0.2), (0.5, 0.4), (0.8, 0.7), (0.81, 1.0)):
        assert largest_rank(probabilities, labels, weights, examples=4, coverage=coverage) == pytest.approx(expected)


def test_a_wrong_label_stands_out():
    found = 0
    for seed in range(10):
        generator = np.random.default_rng(seed)
        features, names = drawn(generator, [5] * 5, noise=0.2)
        wrong = int(generator.integers(25))
        truth, names[wrong] = names[wrong], NAMES[(np.flatnonzero(names[wrong] == NAMES)[0] + 1) % 5]
        verdicts = FewShotClassifier().fit(features, names).examples()
        assert len(verdicts) == 25
        assert [each.probability for each in verdicts] == sorted(each.probability for each in verdicts)
        if verdicts[0].number == wrong:
            found += 1
            assert (verdicts[0].label, verdicts[0].predicted) == (names[wrong], truth)
            assert str(verdicts[0]).startswith(f"example {wrong}: {names[wrong]} with ")
            assert not verdicts[0].agrees
    assert found >= 9
    lonely = FewShotClassifier().fit(np.eye(3), ["a", "b", "c"]).examples()
    assert [(each.predicted, each.probability, each.agrees) for each in lonely] == 3 * [(None, None, True)]
    assert str(lonely[0]) == "example 0: the only example of a"


def test_shots_needed_on_a_known_curve():
    """Log odds -1 + ln(shots): 95 % of 1000 classes, where chance is nothing, take e^(2.944 + 1) = 51.6 shots."""
    curve = [CurvePoint(shots, 1 / (1 + np.exp(1) / shots), 0.0, 1.0) for shots in (1, 2, 4, 8, 16)]
    sure, unsure = needed(curve, 100_000, 0.95, 100_000), needed(curve, 30, 0.95, 100_000)
    assert sure.shots == pytest.approx(52, abs=2)
    assert sure.low <= 52 <= sure.high <= 60
    assert unsure.low < 40
    assert unsure.high is None or unsure.high > 70
    assert needed(curve, 100_000, 0.5, 100_000).shots == 3
    assert needed(curve, 100_000, 0.9999, 100_000).shots is None
    for point in sure.expected:
        assert point.low <= point.accuracy <= point.high
        assert point.accuracy == pytest.approx(1 / (1 + np.exp(1) / point.shots), abs=0.01)
    assert [sure.expected[0].shots, sure.expected[-1].shots] == [1, 1000]
    assert all(few.high - few.low > many.high - many.low for few, many in zip(unsure.expected, sure.expected))
    assert str(needed(curve, 100_000, 0.2, 100_000)).startswith("20 % need 1 photograph per class")


def test_shots_needed_of_a_classifier(tmp_path):
    features, names = drawn(np.random.default_rng(0), [6] * 5, noise=0.6)
    classifier = FewShotClassifier().fit(features, names)
    answer = classifier.shots_needed(0.95)
    assert [point.shots for point in answer.curve] == [1, 2, 3, 4, 5]
    assert answer.curve[-1].accuracy > answer.curve[0].accuracy
    assert str(answer).startswith("95 % need ")
    assert Image.open(answer.save(tmp_path / "curve.png")).size[0] > 600
    with pytest.raises(ConfigError, match=r"with 5 classes an accuracy is above 0.2 by chance"):
        classifier.shots_needed(0.1)


def test_nothing_to_leave_out_is_said():
    single = FewShotClassifier().fit(np.eye(3), ["a", "b", "c"])
    for ask in (
        lambda: single.predict(np.eye(3), reject=0.05),
        lambda: single.predict_set(np.eye(3)),
        single.shots_needed,
    ):
        with pytest.raises(ConfigError, match=r"every class has a single example, so that .*; give two or more"):
            ask()
    with pytest.raises(ConfigError, match="reject is 5, but must be a share"):
        single.predict(np.eye(3), reject=5)


def test_evaluation_is_counted(classifier, tmp_path):
    images, names = drawn(np.random.default_rng(5), [12, 9, 7, 0, 3], noise=0.6)
    result = classifier.evaluate(images, names)
    said = classifier.predict(images)
    assert result.accuracy == np.mean(said == names) == classifier.score(images, names)
    assert 0.4 < result.low < result.accuracy < result.high <= 1
    for row, name in enumerate(NAMES[:5]):
        assert result.confusion[row].tolist() == [np.sum((names == name) & (said == other)) for other in NAMES[:5]]
        assert result.classes[row].images == np.sum(names == name)
        if name != "dog":
            assert result.classes[row].recall == np.mean(said[names == name] == name)
        if name in said:
            assert result.classes[row].precision == np.mean(names[said == name] == name)
    assert np.isnan(result.classes[3].recall)
    assert len(result.mistakes) == np.sum(said != names) > 0
    sure = [mistake.probability for mistake in result.mistakes]
    assert sure == sorted(sure, reverse=True)
    result.save(tmp_path / "out")
    assert "0.9999999" not in (tmp_path / "out" / "classes.csv").read_text()
    assert Image.open(tmp_path / "out" / "confusion.png").size[0] > 200
    with open(tmp_path / "out" / "confusion.csv") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["class", *NAMES[:5]]
    assert [int(count) for count in rows[1][1:]] == result.confusion[0].tolist()
    with pytest.raises(DataError, match=r"has not learnt bees \(did you mean 'bee'\?\); it knows ant, bee"):
        classifier.evaluate(images[:1], ["bees"])


class Pixels:
    """A network that knows the colour of each of 16 parts of an image."""

    form = InputForm(32, 3 * (0.5,), 3 * (0.25,), resize=32)
    trained_on = "nothing"

    def __call__(self, images):
        return functional.normalize(functional.adaptive_avg_pool2d(images, 4).flatten(1))


def test_near_repetitions_are_one_series():
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(2))
    brighter = (first * 0.9 + 20).astype(np.uint8)
    images, names = np.stack([first, second, brighter, 255 - first]), ["a", "a", "a", "b"]
    classifier = FewShotClassifier(Pixels()).fit(images, names)
    series = classifier._evidence.examples.series
    assert series[0] == series[2] != series[1]
    assert len(series.unique()) == 3
    with pytest.warns(UserWarning, match="are the same photograph"):
        classifier.partial_fit(np.stack([brighter, second]), ["b", "c"])
    grown = classifier._evidence.examples.series
    assert grown[0] == grown[2]
    assert len(grown.unique()) == 5, "a series is of one class"
    assert classifier.classes_.tolist() == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="are the same photograph"):
        again = FewShotClassifier(Pixels()).fit(np.concatenate([images, [brighter, second]]), [*names, "b", "c"])
    np.testing.assert_allclose(again.predict_proba(images), classifier.predict_proba(images))


def test_series_by_features_join_by_others():
    angles = np.radians([0, 20, 40, 90, 0])
    features = torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)], 1))
    labels = torch.tensor([0, 0, 0, 0, 1])
    assert series_of(features, labels, cosine=0.9).tolist() == [0, 0, 0, 1, 2]
    assert series_of(features, labels).tolist() == [0, 1, 2, 3, 4]
    assert series_of(features, labels, earlier=torch.tensor([3, 5, 5])).tolist() == [0, 1, 1, 2, 3]


def test_what_one_occasion_cannot_tell_is_said():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    other = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    classifier = FewShotClassifier(Pixels()).fit(np.concatenate([[image, image], other]), ["a", "a", "b", "b", "b"])
    estimate = classifier.estimate()
    assert estimate.one_occasion == ["a"]
    assert "The examples of a nearly repeat each other" in estimate.caution
    assert "The interval allows for another day" in estimate.caution


def test_a_photograph_in_two_classes_is_said():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    images[3] = images[1]
    with pytest.warns(UserWarning, match=r"example 1 and example 3 are the same photograph, but one is .* a .* b"):
        FewShotClassifier(Pixels()).fit(images, ["a", "a", "b", "b"])


def test_partial_fit_with_named_classes():
    features, names = drawn(np.random.default_rng(0), [3] * 3)
    classifier = FewShotClassifier().partial_fit(features[:6], names[:6], classes=["ant", "bee", "cow"])
    classifier.partial_fit(features[6:], names[6:])
    expected = FewShotClassifier().fit(features, names)
    np.testing.assert_allclose(classifier.predict_proba(features), expected.predict_proba(features), atol=1e-6)
    with pytest.raises(DataError, match="examples are of yak, which `classes` does not name"):
        classifier.partial_fit(features[:1], ["yak"], classes=["ant"])
