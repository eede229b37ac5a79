"""The protocol: cached features change nothing, intervals are what they say, comparisons are paired."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learner_toys import build
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

import kshot
from kshot.backbones import Conv4
from kshot.data.augmentation import normalize, prepare_images
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import ConfigError, DataError
from kshot.evaluation.features import extract_features
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Evaluation, Protocol, compare, over_seeds
from kshot.intervals import mean_interval
from kshot.learners import MultiTask
from kshot.measures import SQUARED_ERROR
from kshot.solvers.adaptation import adaptations


@pytest.fixture
def learner() -> MultiTask:
    torch.manual_seed(0)
    return MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)


def result(accuracies, **changes) -> Evaluation:
    fields = {"dataset": "toy", "split": "test", "ways": 5, "shots": 1, "queries": 15, "tasks": 4, "seed": 0}
    protocol = Protocol(**(fields | {"statistics": "running"} | changes))
    return Evaluation("mtl", "logistic", protocol, np.asarray(accuracies, np.float64), 1.0)


def test_equals_scikit_learn_on_each_task_alone(learner, toy_data, toy_split):
    """Images through the network task by task, scikit-learn's solver, scikit-learn's accuracy."""
    hard = toy_split([24] * 6, name="test", size=16, seed=2)
    hard.images[:] = np.random.default_rng(0).permuted(hard.images.reshape(144, -1), axis=0).reshape(hard.images.shape)
    measured = evaluate(learner, hard, ways=4, shots=3, queries=5, tasks=20, seed=3)
    sampler = EpisodeSampler(hard, TaskShape(4, 3, 5), seed=3)
    learner.eval()
    for number in range(20):
        episodes = sampler.episodes(np.asarray([number]))
        with torch.no_grad():
            support, query = (
                learner.features(normalize(images[0], hard.normalization)).numpy()
                for images in (episodes.support, episodes.query)
            )
        head = LogisticRegression(C=3.0, tol=1e-10, max_iter=5000).fit(support, episodes.support_labels[0])
        expected = accuracy_score(episodes.query_labels[0], head.predict(query))
        assert measured.accuracies[number] == pytest.approx(expected)


@pytest.mark.parametrize("adaptation", ["logistic", "centroid", "ridge", "cosine"])
def test_cached_features_give_what_the_images_give(learner, toy_data, adaptation):
    chosen = adaptations[adaptation]()
    cached = evaluate(learner, toy_data.test, ways=4, shots=2, queries=5, tasks=10, adaptation=adaptation)
    sampler = EpisodeSampler(toy_data.test, TaskShape(4, 2, 5), seed=0)
    episodes = prepare_images(sampler.episodes(np.arange(10)), toy_data.test.normalization)
    correct = chosen.scores(learner.eval(), episodes).argmax(-1) == episodes.query_labels
    np.testing.assert_allclose(cached.accuracies, correct.double().mean(1).numpy())
    assert cached.adaptation.split("-")[0] == adaptation
    assert cached.own_adaptation == (adaptation == "logistic")


def test_a_task_does_not_depend_on_how_many_are_asked_for(learner, toy_data, monkeypatch):
    many = evaluate(learner, toy_data.test, ways=4, shots=2, queries=5, tasks=30, seed=1)
    monkeypatch.setattr("kshot.evaluation.answering._CHUNK_BYTES", 1)
    few = evaluate(learner, toy_data.test, ways=4, shots=2, queries=5, tasks=7, seed=1)
    np.testing.assert_array_equal(many.accuracies[:7], few.accuracies)


def test_features_may_be_shared_and_leave_the_learner_as_it_was(learner, toy_data):
    learner.train()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    features = extract_features(learner, toy_data.test)
    assert features.shape == (144, 8)
    shared = evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, tasks=10, features=features)
    np.testing.assert_array_equal(
        shared.accuracies, evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, tasks=10).accuracies
    )
    assert learner.training
    assert learner.precision == "float32"
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_features_too_many_to_keep_are_computed_for_each_task(learner, toy_data, monkeypatch):
    kept = evaluate(learner, toy_data.test, ways=3, shots=2, queries=5, tasks=40)
    monkeypatch.setattr("kshot.evaluation.protocol._FEATURE_BYTES", 144 * 8 * 4 - 1)
    monkeypatch.setattr("kshot.evaluation.protocol.extract_features", None)
    np.testing.assert_array_equal(
        evaluate(learner, toy_data.test, ways=3, shots=2, queries=5, tasks=40).accuracies, kept.accuracies
    )


def test_tune_all_runs_and_leaves_the_weights_alone(learner, toy_data):
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    tuned = evaluate(learner, toy_data.test, ways=3, shots=2, queries=5, tasks=3, adaptation="tune-all")
    assert tuned.mean > 0.5
    assert all(torch.equal(before[name], value) for name, value in learner.state_dict().items())


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    samples = generator.normal(3.0, 2.0, (4000, 12))
    covered = [abs(sample.mean() - 3.0) <= mean_interval(sample).ci95 for sample in samples]
    assert 0.94 < np.mean(covered) < 0.96
    assert np.isnan(mean_interval(np.ones(1)).ci95)


def test_paired_difference_is_that_of_the_tasks():
    first, second = result([0.9, 0.5, 0.7, 0.6]), result([0.8, 0.4, 0.6, 0.5])
    difference = compare(first, second)
    assert difference.mean == pytest.approx(0.1)
    assert difference.ci95 == pytest.approx(0.0, abs=1e-12), (
        "a constant difference has no spread, though accuracies have"
    )
    assert first.ci95 > 0.1
    assert str(difference) == "+10.00 ± 0.00 points, paired over the same tasks"


def test_results_on_different_tasks_are_not_compared():
    with pytest.raises(ConfigError, match=r"different tasks \(they differ in shots, seed\)"):
        compare(result([1, 0, 1, 0]), result([1, 0, 1, 0], shots=5, seed=2))


def test_several_trainings_have_an_interval_over_seeds():
    mean, ci95 = over_seeds([result([0.7] * 4), result([0.8] * 4), result([0.9] * 4)])
    assert mean == pytest.approx(0.8)
    assert ci95 == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)


@pytest.mark.parametrize("within_domain", [True, False])
def test_tasks_within_domain_are_another_protocol(within_domain, learner, toy_split, tmp_path):
    """The split's own way counts as no choice, so that a result is paired with those that were saved without it."""
    split = toy_split([24] * 8, name="test", size=16, domains=["a"] * 4 + ["b"] * 4)
    split = replace(split, tasks_within_domain=not within_domain)
    own = evaluate(learner, split, ways=4, shots=1, queries=5, tasks=9)
    chosen = evaluate(learner, split, ways=4, shots=1, queries=5, tasks=9, within_domain=within_domain)
    same = evaluate(learner, split, ways=4, shots=1, queries=5, tasks=9, within_domain=not within_domain)
    np.testing.assert_array_equal(own.accuracies, same.accuracies)
    assert own.protocol == same.protocol
    assert own.protocol.within_domain is None
    assert chosen.protocol.within_domain is within_domain
    assert ("within one domain" if within_domain else "across domains") in str(chosen)
    other = replace(split, tasks_within_domain=within_domain)
    np.testing.assert_array_equal(
        chosen.accuracies, evaluate(learner, other, ways=4, shots=1, queries=5, tasks=9).accuracies
    )
    with pytest.raises(ConfigError, match=r"different tasks \(they differ in within_domain\)"):
        compare(own, chosen)
    assert own.save(tmp_path) != chosen.save(tmp_path)
    assert Evaluation.load(chosen.save(tmp_path)).protocol == chosen.protocol


def test_results_that_know_nothing_of_groups_are_read(tmp_path):
    original = result([0.25, 0.5, 1 / 3, 1.0])
    path = original.save(tmp_path)
    content = json.loads(path.read_text())
    del content["protocol"]["within_domain"], content["checksum"]
    path.write_text(json.dumps(content))
    assert Evaluation.load(path).protocol == original.protocol


def test_saved_result_is_read_back(tmp_path):
    original = replace(result([0.25, 0.5, 1 / 3, 1.0]), own_adaptation=False, precision="bf16")
    path = original.save(tmp_path)
    again = Evaluation.load(path)
    assert again.protocol == original.protocol
    assert not again.own_adaptation
    assert again.precision == "bf16"
    assert replace(original, precision="float32").save(tmp_path) != path
    np.testing.assert_array_equal(again.accuracies, original.accuracies)
    assert "5-way 1-shot" in str(again)
    assert "seed 0" in str(again)
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="evaluate the run again"):
        Evaluation.load(path)


def test_a_result_shows_what_a_person_asks_first():
    lines = repr(result([0.25, 0.5, 0.75, 1.0])).splitlines()
    assert lines == [
        "Evaluation of mtl: 62.50 ± 51.36 %, mean accuracy with 95% interval",
        "  5-way 1-shot, 15 queries per class, 4 tasks of toy/test, running statistics, seed 0",
    ]
    departing = replace(result([0.5, 0.5]), own_adaptation=False, adaptation="ridge", precision="bf16")
    assert repr(departing).splitlines()[2:] == ["  tasks learnt by ridge", "  computed in bf16"]
    errors = replace(result([0.5, 0.5], ways=1), measure=SQUARED_ERROR)
    assert "0.5000 ± 0.0000, mean squared error with 95% interval" in repr(errors)
    assert len(repr(result(np.linspace(0, 1, 2000)))) < 250


def test_a_full_disk_leaves_the_previous_result(tmp_path, full_disk):
    path = result([0.25, 0.5, 0.75, 1.0]).save(tmp_path)
    before = path.read_bytes()
    with full_disk(".json"), pytest.raises(ConfigError, match=r"1shot.*the disk is full; free some space"):
        result([0.5, 0.5, 0.5, 1.0]).save(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_impossible_requests_are_refused_before_any_feature_is_computed(learner, toy_data, monkeypatch):
    monkeypatch.setattr("kshot.evaluation.protocol.extract_features", None)
    with pytest.raises(DataError, match="too few for 7 ways"):
        evaluate(learner, toy_data.test, ways=7)
    with pytest.raises(ConfigError, match="there is no adaptation 'magic'; choose one of: alpha-tim"):
        evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, adaptation="magic")
    for tasks in (0, 1):
        with pytest.raises(ConfigError, match=f"tasks is {tasks}, but must be at least 2: one task alone has no conf"):
            evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, tasks=tasks)
    with pytest.raises(ConfigError, match="queries is 0, but must be at least 1"):
        evaluate(learner, toy_data.test, ways=3, shots=1, queries=0)
    with pytest.raises(ConfigError, match="no precision 'fp8'; choose one of: float32, bf16"):
        evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, precision="fp8")
    with pytest.raises(ConfigError, match="not trained for inductive statistics"):
        evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, statistics="inductive")
    with pytest.raises(ConfigError, match="288 features were given, but toy/test has 144 images"):
        evaluate(learner, toy_data.test, ways=3, shots=1, queries=5, features=extract_features(learner, toy_data.train))


@pytest.mark.parametrize(("size", "batches"), [(32, [250] * 4 + [40]), (84, [36] * 28 + [32]), (8, [250] * 4 + [40])])
def test_features_are_extracted_from_so_many_pixels_at_a_time(size, batches, toy_split, monkeypatch):
    split, seen = toy_split([1040], size=size), []
    learner = MultiTask(Conv4(2, in_channels=1, image_size=32), num_classes=12)

    def features(images):
        seen.append(len(images))
        return images.mean((2, 3))

    monkeypatch.setattr(learner, "features", features)
    assert extract_features(learner, split).shape == (1040, 1)
    assert seen == batches


@pytest.mark.parametrize("name", ["maml", "anil", "meta-lstm", "mmaml", "tsa-maml"])
def test_any_head_may_be_fitted_to_the_body_of_a_learner_that_adapts_weights(name, toy_data):
    learner = build(name)
    options = {"ways": learner.ways, "shots": 2, "queries": 3, "tasks": 6}
    kinds = [
        evaluate(learner, toy_data.test, adaptation="logistic", statistics=s, **options) for s in (None, "inductive")
    ]
    own = evaluate(learner, toy_data.test, **options)
    assert {result.adaptation for result in kinds} == {"logistic-c=3.0"}
    assert (own.adaptation, own.own_adaptation, kinds[0].own_adaptation) == ("own", True, False)
    assert [result.protocol.statistics for result in kinds] == ["transductive", "inductive"]
    assert all(result.mean > 0.9 for result in kinds), "features of an untrained network tell these classes apart"
    with pytest.raises(ConfigError, match=r"tune-all.* moves the body, too; choose another, such as logistic"):
        evaluate(learner, toy_data.test, adaptation="tune-all", **options)


def test_adaptations_are_for_classes_and_for_learners_with_features(toy_data):
    with pytest.raises(ConfigError, match="TADAM adapts in its own way; leave out the adaptation"):
        evaluate(build("tadam"), toy_data.test, ways=3, adaptation="logistic")
    sinusoids = kshot.load("sinusoids")
    regressor = kshot.create_learner("maml", sinusoids)
    with pytest.raises(ConfigError, match="adaptations tell classes apart, and these tasks are regression"):
        evaluate(regressor, sinusoids, adaptation="logistic")
