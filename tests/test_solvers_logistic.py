"""Logistic regression against scikit-learn, over ways, shots, dimensions, norms and C."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers import logistic, logistic_regression
from kshot.solvers.anderson import Smoother, accelerated
from kshot.solvers.newton import newton
from kshot.solvers.objective import SupportObjective


@dataclass(frozen=True)
class Case:
    """A kind of task; `counts` are the support images of each class, `noise` their spread about the class centre."""

    counts: list[int]
    dimension: int
    norm: float = 1.0
    c: float = 3.0
    noise: float = 2.0
    duplicates: bool = False

    def __str__(self) -> str:
        return "-".join(str(value) for value in vars(self).values()).replace(" ", "")

    def draw(self, tasks: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Support features (B, S, D), labels (B, S) in mixed order, query features (B, T, D)."""
        generator = torch.Generator().manual_seed(7)
        ways = len(self.counts)
        centres = torch.randn(tasks, ways, self.dimension, generator=generator, dtype=torch.float64)

        def sample(labels: Tensor) -> Tensor:
            chosen = torch.gather(centres, 1, labels.unsqueeze(-1).expand(-1, -1, self.dimension))
            noise = torch.randn(chosen.shape, generator=generator, dtype=torch.float64)
            features = torch.nn.functional.normalize(chosen + self.noise * noise, dim=-1)
            return (self.norm * features).to(dtype)

        ordered = torch.repeat_interleave(torch.arange(ways), torch.tensor(self.counts))
        labels = torch.stack([ordered[torch.randperm(len(ordered), generator=generator)] for _ in range(tasks)])
        support = sample(labels)
        if self.duplicates:
            support[:, 1::2] = support[:, : support.shape[1] // 2 * 2 : 2]
        return support, labels, sample(torch.arange(ways).repeat(tasks, 3))


def reference(support: NDArray, labels: NDArray, query: NDArray, c: float, solver: str) -> NDArray:
    """scikit-learn's probabilities at tol=1e-12.

    With D > S the features are first written in an orthonormal basis of their span, which changes no probability and
    lets the Newton solver of scikit-learn do what its lbfgs cannot: get closer than about 1e-5 on large features.
    """
    support, query = support.astype(np.float64), query.astype(np.float64)
    if support.shape[1] > len(support):
        basis = np.linalg.qr(support.T)[0]
        support, query = support @ basis, query @ basis
    model = LogisticRegression(C=c, tol=1e-12, max_iter=100_000, solver=solver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(support, labels).predict_proba(query)


def largest_difference(case: Case, dtype: torch.dtype, solver: str, tasks: int = 2) -> float:
    support, labels, query = case.draw(tasks, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        head = logistic_regression(support, labels, len(case.counts), c=case.c)
    assert head.weight.dtype == head.bias.dtype == dtype
    probabilities = head.scores(query).softmax(-1).numpy()
    expected = [reference(*task, case.c, solver) for task in zip(support.numpy(), labels.numpy(), query.numpy())]
    return float(np.abs(probabilities - np.stack(expected)).max())


TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-6}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)

NORMALISED = [
    Case([5] * 5, 640),
    Case([1] * 5, 640),
    Case([5] * 2, 640),
    Case([1] * 2, 2),
    Case([5] * 5, 640, c=0.1),
    Case([5] * 5, 640, c=100, noise=0.5),
    Case([1] * 20, 64),
    Case([5] * 5, 2, noise=0.3),
    Case([3, 5, 11], 64),
    Case([1, 30, 2, 4], 16),
    Case([4] * 5, 64, duplicates=True),
    Case([5] * 5, 16_000),
]

LARGE = [
    Case([5] * 5, 640, norm=30, noise=1),
    Case([5] * 5, 64, norm=100, c=100, noise=4),
    Case([5] * 2, 64, norm=100, c=1),
    Case([20] * 2, 2, norm=30, c=100),
    Case([20] * 5, 2, norm=100, c=100),
    Case([4] * 5, 8, norm=30, duplicates=True),
    Case([4] * 5, 64, norm=50, c=100, duplicates=True),
    Case([1, 12, 3], 32, norm=60, c=0.1),
    Case([1] * 5, 3, norm=100, c=100),
    Case([1] * 5, 16_000, norm=100),
]


@DTYPES
@pytest.mark.parametrize("case", NORMALISED, ids=str)
def test_agrees_with_scikit_learn(case: Case, dtype: torch.dtype) -> None:
    assert largest_difference(case, dtype, "lbfgs") < TOLERANCE[dtype]


@DTYPES
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_agrees_with_scikit_learn_on_large_features(case: Case, dtype: torch.dtype) -> None:
    assert largest_difference(case, dtype, "newton-cholesky") < TOLERANCE[dtype]


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("norm", [1.0, 30.0])
@pytest.mark.parametrize("c", [0.1, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("dimension", [2, 64, 640])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (2, 50), (5, 1), (5, 10), (10, 5)])
def test_agrees_over_the_grid(ways: int, shots: int, dimension: int, c: float, norm: float, dtype: torch.dtype) -> None:
    case = Case([shots] * ways, dimension, norm, c)
    assert largest_difference(case, dtype, "newton-cholesky", tasks=1) < TOLERANCE[dtype]


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("dimension", [2, 640, 16_000])
def test_agrees_on_the_largest_task(dimension: int, dtype: torch.dtype) -> None:
    assert largest_difference(Case([50] * 20, dimension), dtype, "lbfgs", tasks=1) < TOLERANCE[dtype]


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("dimension", [2, 16])
def test_agrees_on_the_largest_task_with_large_features(dimension: int, dtype: torch.dtype) -> None:
    case = Case([50] * 20, dimension, norm=30, c=100)
    assert largest_difference(case, dtype, "newton-cholesky", tasks=1) < TOLERANCE[dtype]


@pytest.mark.slow
def test_largest_task_with_many_large_features_is_solved() -> None:
    """scikit-learn gets no closer than 1e-4 here, but strong convexity bounds the error by the gradient."""
    case = Case([50] * 20, 640, norm=30, c=100)
    support, labels, _ = case.draw(1, torch.float64)
    head = logistic_regression(support, labels, 20, c=case.c)
    errors = head.scores(support)[0].softmax(-1) - torch.eye(20, dtype=torch.float64)[labels[0]]
    gradient = head.weight[0] + case.c * errors.T @ support[0]
    assert gradient.norm() * case.norm < 1e-5
    assert errors.sum(0).abs().max() < 1e-6


def test_newton_steps_are_shortened_where_they_overshoot() -> None:
    """Classes almost on top of each other, far from the origin: here full Newton steps diverge in 10 of 40 tasks."""
    case = Case([2] * 5, 2, norm=100, c=100, noise=0.1)
    support, labels, _ = case.draw(40, torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        head = logistic_regression(support, labels, 5, c=case.c)
    assert head.weight.isfinite().all()


def test_a_common_offset_changes_nothing_but_the_bias() -> None:
    support, labels, _ = Case([5] * 5, 32).draw(2, torch.float64)
    plain, shifted = (logistic_regression(features, labels, 5) for features in (support, support + 1e4))
    torch.testing.assert_close(shifted.weight, plain.weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(shifted.bias + 1e4 * shifted.weight.sum(-1), plain.bias, rtol=0, atol=1e-6)


def test_zero_features_give_the_class_frequencies() -> None:
    labels = torch.tensor([[0, 1, 1, 2, 1, 0]])
    head = logistic_regression(torch.zeros(1, 6, 4), labels, 3)
    assert not head.weight.any()
    np.testing.assert_allclose(head.bias.softmax(-1)[0], [2 / 6, 3 / 6, 1 / 6], atol=1e-6)


def test_identical_images_in_every_class_cannot_be_told_apart() -> None:
    support = torch.ones(1, 4, 3, dtype=torch.float64)
    head = logistic_regression(support, torch.tensor([[0, 1, 0, 1]]), 2)
    np.testing.assert_allclose(head.scores(support).softmax(-1), 0.5, atol=1e-9)


def test_easy_and_hard_tasks_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    easy, labels, _ = Case([5] * 5, 32).draw(6, torch.float64)
    mixed = easy * torch.tensor([1, 40, 1, 0, 100, 1.0])[:, None, None]
    together = logistic_regression(mixed, labels, 5)
    alone = [logistic_regression(mixed[i : i + 1], labels[i : i + 1], 5) for i in range(6)]
    torch.testing.assert_close(together.weight, torch.cat([head.weight for head in alone]), rtol=0, atol=1e-6)
    monkeypatch.setattr(logistic, "_CHUNK_BYTES", 1)
    chunked = logistic_regression(mixed, labels, 5)
    torch.testing.assert_close(chunked.bias, together.bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dimension", [4, 100], ids=["factored", "dense"])
def test_each_stage_alone_reaches_the_optimum(dimension: int) -> None:
    support, labels, _ = Case([5] * 5, dimension).draw(4, torch.float64)
    centred = support - support.mean(1, keepdim=True)
    objective = SupportObjective.of(centred, labels, 5, 3.0)
    quick, quick_residual = accelerated(objective, Smoother.of(centred, objective), tol=1e-9)
    sure, sure_residual = newton(objective, centred, tol=1e-9)
    assert quick_residual.max() <= 1e-9
    assert sure_residual.max() <= 1e-9
    torch.testing.assert_close(quick, sure, rtol=0, atol=1e-8)


def test_no_gradient_and_low_precision_of_the_caller_do_not_matter() -> None:
    support, labels, _ = Case([5] * 5, 64).draw(2, torch.float32)
    plain = logistic_regression(support, labels, 5)
    with torch.autocast("cpu", torch.bfloat16):
        head = logistic_regression(support.clone().requires_grad_(), labels, 5)
    assert not head.weight.requires_grad
    torch.testing.assert_close(head.weight, plain.weight)


def test_warns_when_rounding_keeps_a_task_from_the_tolerance() -> None:
    support, labels, _ = Case([5] * 5, 64, norm=30).draw(2, torch.float64)
    with pytest.warns(RuntimeWarning, match=r"tol=1e-30 on 2 of 2 tasks; the largest residual is \d"):
        logistic_regression(support, labels, 5, tol=1e-30)


@dataclass
class Refusal:
    """Arguments that must be refused, by an error and a part of its message."""

    message: str
    error: type[Exception] = DataError
    features: Tensor = field(default_factory=lambda: torch.ones(2, 3, 4))
    labels: list[list[int]] = field(default_factory=lambda: [[0, 1, 2], [2, 1, 0]])
    ways: int = 3
    options: dict[str, float] = field(default_factory=dict)


NOT_A_NUMBER = torch.ones(2, 3, 4)
NOT_A_NUMBER[1, 2, 3] = torch.nan
INFINITE = torch.ones(2, 3, 4)
INFINITE[0, 0, 0] = torch.inf


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("task 1 has the support label 3, outside 0..2 for 3 ways", labels=[[0, 1, 2], [2, 1, 3]]),
        Refusal("task 0 has the support label -1", labels=[[0, -1, 2], [2, 1, 0]]),
        Refusal("class 1 of task 1 has no support image", labels=[[0, 1, 2], [2, 2, 0]]),
        Refusal("task 1: the support features are not all finite", DivergenceError, features=NOT_A_NUMBER),
        Refusal("task 0: the support features are not all finite", DivergenceError, features=INFINITE),
        Refusal(r"but got \(2, 4\) and \(2, 3\)", features=torch.ones(2, 4)),
        Refusal("floating point", features=torch.ones(2, 3, 4, dtype=torch.int64)),
        Refusal("more than float64 can resolve", features=1e8 * torch.randn(2, 3, 4)),
        Refusal("ways is 1", ConfigError, ways=1),
        Refusal("c is 0", ConfigError, options={"c": 0.0}),
        Refusal("c is -3", ConfigError, options={"c": -3.0}),
        Refusal("c is nan", ConfigError, options={"c": float("nan")}),
        Refusal("tol is 0", ConfigError, options={"tol": 0.0}),
    ],
    ids=lambda refusal: refusal.message,
)
def test_refuses_what_it_cannot_learn_from(refusal: Refusal) -> None:
    with pytest.raises(refusal.error, match=refusal.message):
        logistic_regression(refusal.features, torch.tensor(refusal.labels), refusal.ways, **refusal.options)
