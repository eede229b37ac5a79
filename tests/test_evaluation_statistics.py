"""Where BatchNorm statistics come from when weights are adapted: the whole query set, or one query image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from kshot.backbones import Conv4
from kshot.data.augmentation import prepare_images
from kshot.data.dataset import Dataset
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.errors import ConfigError, DivergenceError
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Evaluation
from kshot.learners import MAML, MultiTask
from kshot.report.rows import Row
from kshot.report.tables import table
from kshot.training import train


@pytest.fixture
def maml() -> MAML:
    torch.manual_seed(0)
    return MAML(Conv4(8, in_channels=1, image_size=16), ways=4, test_inner_steps=3)


def plain_conv4(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The network written out, every BatchNorm by the statistics of `images`."""
    for block in range(4):
        at = f"backbone.blocks.{block}"
        images = functional.conv2d(images, weights[f"{at}.0.weight"], weights[f"{at}.0.bias"], padding=1)
        affinity = weights[f"{at}.1.weight"], weights[f"{at}.1.bias"]
        images = functional.batch_norm(images, None, None, *affinity, training=True)
        images = functional.max_pool2d(functional.relu(images), 2)
    return functional.linear(images.flatten(1), weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
def test_equals_a_plain_loop_over_tasks_and_query_images(maml, toy_data, statistics):
    measured = evaluate(maml, toy_data.test, ways=4, shots=2, queries=3, tasks=4, statistics=statistics)
    episodes = prepare_images(
        EpisodeSampler(toy_data.test, TaskShape(4, 2, 3), seed=0).episodes(np.arange(4)), toy_data.test.normalization
    )
    maml.double().eval().statistics_at_test = statistics
    scores = maml.scores(episodes.with_images(episodes.support.double(), episodes.query.double()))
    for task in range(4):
        support, query = episodes.support[task].double(), episodes.query[task].double()
        weights = {name: value.detach().clone().requires_grad_() for name, value in maml.network.named_parameters()}
        for _ in range(3):
            loss = functional.cross_entropy(plain_conv4(weights, support), episodes.support_labels[task])
            gradients = torch.autograd.grad(loss, list(weights.values()))
            weights = {name: value - 0.05 * g for (name, value), g in zip(weights.items(), gradients)}
        if statistics == "transductive":
            expected = plain_conv4(weights, query)
        else:
            expected = torch.cat([plain_conv4(weights, torch.cat([support, image[None]]))[-1:] for image in query])
        torch.testing.assert_close(scores[task], expected.detach(), rtol=1e-8, atol=1e-10)
        correct = (expected.argmax(-1) == episodes.query_labels[task]).double().mean()
        assert measured.accuracies[task] == pytest.approx(correct.item())
    assert measured.protocol.statistics == statistics


def test_the_usual_statistics_are_each_learner_s_own_and_others_are_refused(maml, toy_data):
    assert evaluate(maml, toy_data.test, ways=4, shots=1, queries=2, tasks=2).protocol.statistics == "transductive"
    multi_task = MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)
    assert evaluate(multi_task, toy_data.test, ways=4, shots=1, queries=2, tasks=2).protocol.statistics == "running"
    for learner, statistics in ((maml, "running"), (multi_task, "inductive")):
        with pytest.raises(ConfigError, match=f"not trained for {statistics} statistics; choose one of"):
            evaluate(learner, toy_data.test, ways=4, shots=1, queries=2, tasks=2, statistics=statistics)
    assert maml.statistics_at_test == "transductive"


def test_a_task_that_diverges_is_named_by_its_number(maml, toy_data, tmp_path):
    maml.inner_rate = 1e30
    with pytest.raises(DivergenceError, match=r"task 0: the inner loop diverged: the loss was .* lower the inner rate"):
        evaluate(maml, toy_data.test, ways=4, shots=1, queries=2, tasks=5)
    with pytest.raises(DivergenceError, match=r"training failed \(task 0: the inner loop diverged"):
        train(maml, toy_data, ways=4, shots=1, queries=2, run=tmp_path, max_epochs=1, tasks_per_epoch=8, progress=False)
    assert not (tmp_path / "checkpoints" / "best.pt").exists()


def test_tasks_within_domain_are_shown_by_group(maml, toy_split):
    split = toy_split([24] * 8, name="test", size=16, domains=["a"] * 4 + ["b"] * 4)
    data = Dataset("toy", train=split, val=split, test=split, train_val=split)
    result = evaluate(maml, data.test, ways=4, shots=1, queries=2, tasks=9, within_domain=True)
    parts = result.by_domain()
    assert list(parts) == ["a", "b"]
    assert sum(part.protocol.tasks for part in parts.values()) == 9
    assert sum(part.accuracies.sum() for part in parts.values()) == pytest.approx(result.accuracies.sum())
    assert f"run, 1-shot by domain (tasks): a {100 * parts['a'].mean:.2f} ±" in str(table([Row("run", [result])]))
    assert evaluate(maml, data.test, ways=4, shots=1, queries=2, tasks=9).by_domain() == {}


def test_tasks_per_domain_are_the_first_ones_of_each_and_domains_count_the_same(maml, toy_split, tmp_path):
    split = toy_split([24] * 8, name="test", size=16, domains=["a"] * 4 + ["b"] * 4)
    options = {"ways": 4, "shots": 1, "queries": 2, "within_domain": True}
    result = evaluate(maml, split, tasks_per_domain=5, **options)
    parts, plain = result.by_domain(), evaluate(maml, split, tasks=40, **options).by_domain()
    assert [part.protocol.tasks for part in parts.values()] == [5, 5]
    for name, part in parts.items():
        assert (part.values == plain[name].values[:5]).all()
    average = result.over_domains()
    assert average.mean == pytest.approx(result.mean)
    assert average.ci95 == pytest.approx(0.5 * (parts["a"].ci95 ** 2 + parts["b"].ci95 ** 2) ** 0.5)
    text = str(table([Row("run", [result])]))
    assert f"; average over domains {100 * average.mean:.2f} ± {100 * average.ci95:.2f}." in text
    assert "10 tasks of toy/test, each within one domain, 5 of each domain, transductive" in text
    saved = Evaluation.load(result.save(tmp_path))
    assert saved.protocol == result.protocol
    with pytest.raises(ConfigError, match="mix domains, so there are none per domain; choose within_domain=true"):
        evaluate(maml, split, tasks_per_domain=5, **(options | {"within_domain": False}))


def test_the_number_of_ways_is_the_learner_s_own_where_nobody_says(maml, toy_data):
    assert evaluate(maml, toy_data.test, shots=1, queries=2, tasks=2).protocol.ways == 4
