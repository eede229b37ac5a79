"""The one loop over batches of tasks: what it promises, and that every measurement uses it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_split
from learner_toys import build

import kshot
from kshot.data.augmentation import prepare_images
from kshot.data.episodes import Episodes, EpisodeSampler, TaskShape
from kshot.errors import DivergenceError
from kshot.evaluation import answering, features, protocol, results, task_loop
from kshot.evaluation.task_loop import for_tasks
from kshot.experiments import adaptation_curves, regression, task_domains, task_maps
from kshot.tsa import clustering, solutions

NUMBERS = np.asarray([7, 3, 9, 0, 12])


@pytest.fixture
def sampler() -> EpisodeSampler:
    return EpisodeSampler(make_split([8] * 4, size=16), TaskShape(3, 1, 2), seed=5)


def over(sampler: EpisodeSampler, function: Any, learner: Any = None, **options: Any) -> list[Any]:
    normalization = sampler.split.normalization
    shared = {"sampler": sampler, "numbers": NUMBERS, "normalization": normalization}
    return for_tasks(learner or build("protonet"), function, **shared | options)


@pytest.mark.parametrize(("at_once", "sizes"), [(2, [2, 2, 1]), (5, [5]), (100, [5])])
def test_every_task_is_seen_once_and_in_order(at_once: int, sizes: list[int], sampler: EpisodeSampler) -> None:
    batches = over(sampler, lambda episodes: episodes, at_once=at_once)
    assert [batch.tasks for batch in batches] == sizes
    expected = prepare_images(sampler.episodes(NUMBERS), sampler.split.normalization)
    for name in ("support", "support_labels", "query", "query_labels", "classes"):
        together = torch.cat([getattr(batch, name) for batch in batches])
        torch.testing.assert_close(together, getattr(expected, name), rtol=0, atol=0)


def test_tasks_that_were_done_before_are_left_out(sampler: EpisodeSampler) -> None:
    classes = over(sampler, lambda episodes: episodes.classes, at_once=2, done=3)
    torch.testing.assert_close(torch.cat(classes), sampler.episodes(NUMBERS[3:]).classes)
    assert over(sampler, lambda episodes: episodes, done=5) == []


def test_the_learner_is_in_evaluation_mode_meanwhile_and_then_as_before(sampler: EpisodeSampler) -> None:
    learner = build("maml").train()
    seen = []

    def fails_at_last(episodes: Episodes) -> None:
        seen.append((learner.training, learner.precision, learner.statistics_at_test))
        if len(seen) == 3:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        over(sampler, fails_at_last, learner, at_once=2, precision="bf16", statistics="inductive")
    assert seen == [(False, "bf16", "inductive")] * 3
    assert (learner.training, learner.precision, learner.statistics_at_test) == (True, "float32", "transductive")


def test_a_task_that_diverges_is_named_by_its_number(sampler: EpisodeSampler) -> None:
    def second_diverges(episodes: Episodes) -> None:
        raise DivergenceError("too far", task=1)

    with pytest.raises(DivergenceError, match="task 3: too far"):
        over(sampler, second_diverges)
    with pytest.raises(DivergenceError, match="task 0: too far"):
        over(sampler, second_diverges, at_once=2, done=2)


def test_the_bar_counts_tasks(sampler: EpisodeSampler, capsys: pytest.CaptureFixture[str]) -> None:
    over(sampler, lambda episodes: None, done=2)
    assert capsys.readouterr().err == ""
    over(sampler, lambda episodes: None, done=2, progress="some tasks")
    err = capsys.readouterr().err
    assert "some tasks" in err
    assert "5/5" in err


def test_no_measurement_prepares_tasks_by_itself() -> None:
    """A second loop over tasks would have to prepare their images; `for_tasks` does it for all."""
    package = Path(kshot.__file__).parent
    preparing = [
        str(path.relative_to(package))
        for room in ("evaluation", "experiments", "tsa", "runs", "report", "photos", "cli")
        for path in sorted((package / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("prepare_images")
    ]
    assert preparing == ["evaluation/task_loop.py"]


@pytest.mark.parametrize(
    "module",
    [
        answering,
        features,
        protocol,
        results,
        task_loop,
        adaptation_curves,
        task_domains,
        task_maps,
        regression,
        clustering,
        solutions,
    ],
    ids=lambda module: module.__name__,
)
def test_options_are_given_by_name(module: ModuleType) -> None:
    """No option of a public function can be given by its place; the first two arguments can."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("_") or function.__module__ != module.__name__:
            continue
        parameters = list(inspect.signature(function).parameters.values())
        options = [each for each in parameters[2:] if each.default is not each.empty]
        assert all(each.kind is each.KEYWORD_ONLY for each in options), f"{module.__name__}.{name}"
