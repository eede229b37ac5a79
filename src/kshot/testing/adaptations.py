"""The contract of adaptations: `check_adaptation` runs it on any class."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers.adaptation import Adaptation, HeadAdaptation

_WAYS, _SUPPORT_COUNTS, _QUERIES, _TASKS = 3, (2, 3, 5), 4, 3
_SIDE, _FEATURES = 4, 12
_CLOSE = 1e-5  # of the spread of scores: iterative solvers stop at a tolerance


def check_adaptation(cls: type[Adaptation], **options: Any) -> None:
    """Check that an adaptation keeps the promises that evaluation and learners build on.

    The checks: scores (B, T, N) are finite, of the type of the features, and right on separable tasks with unequal
    support sets; they follow a permutation of the labels (unless the class says otherwise), do not depend on other
    tasks or, unless the class is `transductive`, on other query images, and are close in float32 and float64; features
    that are all equal, a single query image and classes without any give finite scores, or an error that says so;
    images that are not finite numbers are refused, if no gradient is recorded, and their task is named; the learner
    stays as it was; support sets that lack a class and tasks of one class are refused; ``description`` can name a file;
    gradients of a head are those of finite differences, or none if the class says so
    (`HeadAdaptation.passes_gradients`); and a head that needs the mean of the training images says so if it lacks it.

    Parameters
    ----------
    cls
        The class, registered or with a `description` of its own.
    options
        Arguments of its constructor.

    Raises
    ------
    AssertionError
        A promise is broken; the message says which.

    Examples
    --------
    >>> check_adaptation(kshot.solvers.Ridge, l2=10.0)
    """
    adaptation = cls(**options)
    learner, episodes = _learner(), _separable_tasks()
    if isinstance(adaptation, HeadAdaptation):
        adaptation = _told_the_mean(adaptation, learner, episodes)
    scores = _check_scores(adaptation, learner, episodes)
    if adaptation.follows_label_permutations:
        _check_permutation(adaptation, learner, episodes, scores)
    _check_independence(adaptation, learner, episodes, scores)
    _check_precision(adaptation, learner, episodes, scores)
    _check_refusals(adaptation, learner, episodes)
    _check_little_to_go_by(adaptation, learner, episodes)
    _check_not_finite(adaptation, learner, episodes)
    _check_description(cls, options)
    if isinstance(adaptation, HeadAdaptation):
        _check_gradients(adaptation, learner, episodes)


class _LinearLearner(nn.Module):
    """A linear layer as a learner: features (M, D) of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(_SIDE**2, _FEATURES)

    def features(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


def _learner() -> _LinearLearner:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _LinearLearner().double().eval()


def _separable_tasks() -> Episodes:
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randn(_TASKS, _WAYS, 1, _SIDE, _SIDE, generator=generator, dtype=torch.float64)
    support_labels = torch.repeat_interleave(torch.arange(_WAYS), torch.tensor(_SUPPORT_COUNTS)).repeat(_TASKS, 1)
    query_labels = torch.arange(_WAYS).repeat(_TASKS, _QUERIES)

    def draw(labels: Tensor) -> Tensor:
        chosen = patterns[torch.arange(_TASKS)[:, None], labels]
        return chosen + 0.2 * torch.randn(chosen.shape, generator=generator, dtype=torch.float64)

    classes = torch.arange(_WAYS).repeat(_TASKS, 1)
    keys = np.arange(_TASKS, dtype=np.uint64)
    return Episodes(draw(support_labels), support_labels, draw(query_labels), query_labels, classes, keys)


def _check_scores(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes) -> Tensor:
    before = copy.deepcopy(learner.state_dict())
    scores = adaptation.scores(learner, episodes).detach()
    expected = (_TASKS, _WAYS * _QUERIES, _WAYS)
    assert scores.shape == expected, (
        f"scores are {tuple(scores.shape)} instead of (tasks, query images, ways) {expected}"
    )
    assert scores.dtype == torch.float64, f"scores of float64 features are {scores.dtype}"
    assert scores.isfinite().all(), "scores are not finite"
    right = float((scores.argmax(-1) == episodes.query_labels).double().mean())
    assert right > 0.8, f"separable tasks with unequal support sets are learnt with an accuracy of only {right:.2f}"
    after = learner.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "the learner's weights have changed"
    assert torch.equal(adaptation.scores(learner, episodes).detach(), scores), "a second call gives other scores"
    return scores


def _check_permutation(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes, scores: Tensor) -> None:
    permutation = torch.tensor([2, 0, 1])
    renamed = replace(episodes, support_labels=permutation[episodes.support_labels])
    permuted = adaptation.scores(learner, renamed).detach()[..., permutation]
    _assert_close(permuted, scores, "scores do not follow a permutation of the labels (see follows_label_permutations)")


def _check_independence(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes, scores: Tensor) -> None:
    for task in range(_TASKS):
        alone = adaptation.scores(learner, episodes.part(task, task + 1)).detach()
        _assert_close(alone, scores[task : task + 1], "scores of a task depend on the other tasks of the batch")
    some = adaptation.scores(learner, _with_queries(episodes, 2)).detach()
    if adaptation.transductive:
        changed = float((some - scores[:, :2]).abs().max())
        assert changed > 0, "transductive is True, but scores of a query image do not depend on the other query images"
    else:
        message = "scores of a query image depend on the other query images (see transductive)"
        _assert_close(some, scores[:, :2], message)


def _with_queries(episodes: Episodes, count: int) -> Episodes:
    """The tasks with their first query images only."""
    return replace(episodes, query=episodes.query[:, :count], query_labels=episodes.query_labels[:, :count])


def _check_precision(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes, scores: Tensor) -> None:
    single = adaptation.scores(
        copy.deepcopy(learner).float(), episodes.with_images(episodes.support.float(), episodes.query.float())
    ).detach()
    assert single.dtype == torch.float32, f"scores of float32 features are {single.dtype}"
    share = 5e-2 if adaptation.magnifies_rounding else 1e-3
    _assert_close(single.double(), scores, "scores in float32 and float64 differ", share=share)


def _check_refusals(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes) -> None:
    lacking = replace(episodes, support_labels=episodes.support_labels.clamp(max=_WAYS - 2))
    single = replace(
        episodes,
        support_labels=torch.zeros_like(episodes.support_labels),
        query_labels=torch.zeros_like(episodes.query_labels),
        classes=episodes.classes[:, :1],
    )
    for tasks, expected, what in (
        (lacking, DataError, "a support set that lacks a class"),
        (single, ConfigError, "a task of a single class"),
    ):
        try:
            adaptation.scores(learner, tasks)
        except expected:
            continue
        raise AssertionError(f"{what} is not refused by {expected.__name__}; call kshot.solvers.heads.check_support")


def _check_little_to_go_by(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes) -> None:
    """Scores are finite, or refused, if images are all alike, are few, or lack classes among the queries."""
    alike = episodes.with_images(torch.ones_like(episodes.support), torch.ones_like(episodes.query))
    none = episodes.with_images(torch.zeros_like(episodes.support), torch.zeros_like(episodes.query))
    one_class = replace(
        episodes, query=episodes.query[:, ::_WAYS].contiguous(), query_labels=episodes.query_labels[:, ::_WAYS]
    )
    for tasks, what in (
        (alike, "images that are all alike"),
        (none, "images that are all zero"),
        (_with_queries(episodes, 1), "a single query image"),
        (one_class, "query images of a single class"),
    ):
        try:
            scores = adaptation.scores(learner, tasks)
        except (ConfigError, DataError):
            continue
        assert scores.isfinite().all(), f"{what} give scores that are not finite; say so by a DataError, or mend it"


@torch.no_grad()
def _check_not_finite(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes) -> None:
    """An image of NaN or infinity, among the support or the query images of a task, is refused and the task named."""
    for value in (torch.nan, torch.inf, -torch.inf):
        for part in ("support", "query"):
            images = {"support": episodes.support.clone(), "query": episodes.query.clone()}
            images[part][_TASKS - 1, 0] = value
            task = _refused_task(adaptation, learner, episodes.with_images(images["support"], images["query"]))
            assert task is not None, (
                f"{part} images of {value} are not refused by DivergenceError, which names the task; call "
                "check_support and checked_scores of kshot.solvers.heads"
            )
            assert task == _TASKS - 1, f"{part} images of {value} are refused as those of another task, {task}"


def _refused_task(adaptation: Adaptation, learner: _LinearLearner, episodes: Episodes) -> int | None:
    """The task that a DivergenceError names; None if there is no such error."""
    try:
        adaptation.scores(learner, episodes)
    except DivergenceError as error:
        return error.task
    return None


def _told_the_mean(adaptation: HeadAdaptation, learner: _LinearLearner, episodes: Episodes) -> HeadAdaptation:
    """The adaptation, told the mean feature if it needs it; without it, it has to say so."""
    if not adaptation.lacks_training_mean:
        return adaptation
    try:
        adaptation.scores(learner, episodes)
    except ConfigError:
        return adaptation.centred_at(learner.features(episodes.images().flatten(0, 1)).mean(0))
    raise AssertionError("lacks_training_mean is True, but scores without it are not refused by ConfigError")


def _check_description(cls: type[Adaptation], options: dict[str, Any]) -> None:
    description = cls(**options).description
    assert re.fullmatch(r"[\w.=+,-]+", description), f"the description {description!r} cannot name a file"
    assert cls(**options).description == description, "the description changes from instance to instance"


def _check_gradients(adaptation: HeadAdaptation, learner: _LinearLearner, episodes: Episodes) -> None:
    """The derivative of the scores along a random direction of the support features, against central differences."""
    with torch.no_grad():
        support = learner.features(episodes.support.flatten(0, 1)).unflatten(0, episodes.support.shape[:2])
        query = learner.features(episodes.query.flatten(0, 1)).unflatten(0, episodes.query.shape[:2])
    generator = torch.Generator().manual_seed(2)
    way, factors = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (support.shape, (_WAYS,)))

    def total(features: Tensor) -> Tensor:
        head = adaptation.head(features, episodes.support_labels, _WAYS)
        return (head.scores(query) * factors).sum()

    given = support.clone().requires_grad_()
    result = total(given)
    if not adaptation.passes_gradients:
        assert not result.requires_grad, "passes_gradients is False, but scores have a gradient"
        return
    assert result.requires_grad, "passes_gradients is True, but scores have no gradient in the features"
    (gradient,) = torch.autograd.grad(result, given)
    step = 1e-6
    with torch.no_grad():
        difference = (total(support + step * way) - total(support - step * way)) / (2 * step)
    derivative = (gradient * way).sum()
    bound = 1e-4 * float(difference.abs()) + 1e-6
    assert float((derivative - difference).abs()) <= bound, (
        f"the derivative of the scores is {float(derivative)}, but finite differences give {float(difference)}"
    )


def _assert_close(actual: Tensor, expected: Tensor, message: str, *, share: float = _CLOSE) -> None:
    difference, spread = float((actual - expected).abs().max()), float(expected.max() - expected.min())
    assert difference <= share * spread, f"{message}, by up to {difference:.2g} of a spread of {spread:.2g}"
