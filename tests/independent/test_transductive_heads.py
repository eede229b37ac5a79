"""Heads that look at all query images together, against the papers' formulas, one task after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from feature_tasks import QUERIES, SIZES, WAYS, check_head, draw_tasks, means, one_hot, unit
from sklearn.neighbors import NearestNeighbors
from sklearn.semi_supervised import LabelSpreading
from torch import Tensor

from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.solvers import (
    BDCSPN,
    PTMAP,
    TIM,
    AlphaTIM,
    LabelPropagation,
    LaplacianShot,
    TransductiveAdaptation,
    TransductiveFineTune,
)
from kshot.solvers.sinkhorn import transported

HEADS = [
    BDCSPN(),
    PTMAP(),
    TIM(),
    TIM(solver="gradient", steps=20),
    AlphaTIM(steps=20),
    LabelPropagation(),
    LaplacianShot(),
    TransductiveFineTune(),
]
EACH = pytest.mark.parametrize("adaptation", HEADS, ids=lambda head: head.description)
TEMPERATURE = 15.0


def scores_of(images: Tensor, weights: Tensor) -> Tensor:
    """-tau / 2 |x - w_k|^2 (M, N)."""
    return torch.stack([-TEMPERATURE / 2 * (images - weight).square().sum(1) for weight in weights], 1)


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon's, (...) of (..., N)."""
    return -(probabilities * probabilities.log()).sum(-1)


def tsallis(probabilities: Tensor, alpha: float) -> Tensor:
    """Tsallis' entropy, (...) of (..., N)."""
    return (1 - (probabilities**alpha).sum(-1)) / (alpha - 1)


def by_adam(
    objective: Callable[[Tensor, Tensor], Tensor], support_weight: float, steps: int
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Adam on the class means, of the support images' cross-entropy and an objective of the mean and single p."""

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit(support), unit(query)
        weights = means(support, labels).requires_grad_()
        optimizer = torch.optim.Adam([weights], lr=1e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            p = scores_of(query, weights).softmax(1)
            loss = support_weight * F.cross_entropy(scores_of(support, weights), labels) + objective(p.mean(0), p)
            loss.backward()
            optimizer.step()
        return scores_of(query, weights).detach()

    return plain


def test_tim_by_gradient() -> None:
    """Boudiaf et al. eq. 3."""
    objective = by_adam(lambda mean, p: -2.0 * entropy(mean) + 0.3 * entropy(p).mean(), 0.2, steps=150)
    weights = {"cross_entropy_weight": 0.2, "marginal_weight": 2.0, "conditional_weight": 0.3}
    adaptation = TIM(solver="gradient", steps=150, **weights)
    check_head(adaptation, objective, atol=1e-8)


def test_tim_by_alternating_updates() -> None:
    """Boudiaf et al. proposition 1: soft labels q, then weights, in the space of the features."""
    lam, alpha = 0.1, 0.1

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query, y = unit(support), unit(query), one_hot(labels)
        weights = means(support, labels)
        for _ in range(150):
            p_support, p = scores_of(support, weights).softmax(1), scores_of(query, weights).softmax(1)
            q = p ** (1 + alpha) / (p ** (1 + alpha)).sum(0, keepdim=True).sqrt()
            q = q / q.sum(1, keepdim=True)
            moved = []
            for k, weight in enumerate(weights):
                first, second = lam / (1 + alpha), len(support) / len(query)
                top = first * sum(y[i, k] * x + p_support[i, k] * (weight - x) for i, x in enumerate(support))
                top = top + second * sum(q[i, k] * x + p[i, k] * (weight - x) for i, x in enumerate(query))
                moved.append(top / (first * y[:, k].sum() + second * q[:, k].sum()))
            weights = torch.stack(moved)
        return scores_of(query, weights)

    check_head(TIM(), plain, atol=1e-8)


@pytest.mark.parametrize("alpha", [2.0, 5.0])
def test_alpha_tim(alpha: float) -> None:
    """Veilleux et al. section 4."""
    objective = by_adam(lambda mean, p: -tsallis(mean, alpha) + tsallis(p, alpha).mean(), 1.0, steps=200)
    check_head(AlphaTIM(alpha=alpha, steps=200), objective, atol=1e-8)


def test_transductive_fine_tune() -> None:
    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit(support), unit(query)
        weight = unit(means(support, labels)).requires_grad_()
        bias = torch.zeros(WAYS, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], lr=1e-2)
        for _ in range(25):
            optimizer.zero_grad()
            of_support, of_query = (10 * (images @ weight.T + bias) for images in (support, query))
            (F.cross_entropy(of_support, labels) + entropy(of_query.softmax(1)).mean()).backward()
            optimizer.step()
        return (10 * (query @ weight.T + bias)).detach()

    check_head(TransductiveFineTune(temperature=10.0, learning_rate=1e-2), plain, atol=1e-8)


def rectified(support: Tensor, labels: Tensor, query: Tensor, sharpness: float) -> Tensor:
    """The class means (N, D) of BD-CSPN (Liu et al. section 3)."""
    shifted = query + support.mean(0) - query.mean(0)
    prototypes = means(support, labels)
    cosines = F.cosine_similarity(shifted[:, None], prototypes[None], dim=2)
    found = []
    for way, prototype in enumerate(prototypes):
        members = torch.cat([support[labels == way], shifted[cosines.argmax(1) == way]])
        weights = (sharpness * F.cosine_similarity(members, prototype[None])).exp()
        found.append((weights[:, None] * members).sum(0) / weights.sum())
    return torch.stack(found)


def test_bd_cspn() -> None:
    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit(support), unit(query)
        return F.cosine_similarity(query[:, None], rectified(support, labels, query, 10.0)[None], dim=2)

    check_head(BDCSPN(), plain)


@pytest.mark.parametrize("neighbors", [3, 100])
def test_laplacian_shot(neighbors: int) -> None:
    """Ziko et al. Algorithm 1, until the assignments no longer move."""

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = unit(support), unit(query)
        costs = torch.cdist(query, rectified(support, labels, query, 10.0)) ** 2
        count = min(neighbors, len(query) - 1)
        graph = NearestNeighbors(n_neighbors=count).fit(query.numpy()).kneighbors_graph().toarray()
        y = (-costs).softmax(1)
        for _ in range(1000):
            y = (-costs + 0.5 * torch.from_numpy(graph) @ y).softmax(1)
        return y.log()

    check_head(LaplacianShot(penalty=0.5, neighbors=neighbors), plain, atol=2e-3)  # which stops at a change of 1e-6


def sinkhorn(costs: Tensor, sharpness: float, rounds: int = 20_000) -> Tensor:
    """Scaling of rows and columns, one after the other."""
    plan = (-sharpness * costs).exp()
    for _ in range(rounds):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan * (len(costs) / costs.shape[1] / plan.sum(0, keepdim=True))
        if (plan.sum(1) - 1).abs().max() < 1e-12:
            break
    return plan


def test_pt_map() -> None:
    """Hu et al. Algorithm 1, in the space of the features."""

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        support, query = (unit((features + 1e-6) ** 0.5) for features in (support, query))
        support, query = (unit(features - features.mean(0)) for features in (support, query))
        centres, images, y = means(support, labels), torch.cat([support, query]), one_hot(labels)
        for _ in range(20):
            shares = torch.cat([y, sinkhorn(torch.cdist(query, centres) ** 2, 10.0)])
            moved = (shares.T @ images) / shares.sum(0)[:, None]
            centres = centres + 0.2 * (moved - centres)
        return sinkhorn(torch.cdist(query, centres) ** 2, 10.0).log()

    check_head(PTMAP(), plain, atol=1e-4)  # transport stops at 1e-6


@pytest.mark.parametrize("sharpness", [1.0, 10.0, 20.0])
def test_transport_gives_every_image_a_whole_and_every_class_its_share(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(4, 5, 10, generator=generator, dtype=torch.float64)
    plan, factors = transported(costs, sharpness=sharpness)
    torch.testing.assert_close(plan.sum(1), torch.ones(4, 10, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(plan.sum(2), torch.full((4, 5), 2.0, dtype=torch.float64), rtol=0, atol=1e-3)
    for task, own in zip(costs, plan):
        torch.testing.assert_close(own.T, sinkhorn(task.T, sharpness), rtol=0, atol=1e-4)
    again, _ = transported(costs, sharpness=sharpness, start=factors)
    torch.testing.assert_close(again, plan, rtol=0, atol=1e-5)


def test_transport_that_does_not_get_there_says_by_how_much() -> None:
    costs = torch.rand(4, 5, 10, generator=torch.Generator().manual_seed(0))
    with pytest.warns(RuntimeWarning, match=r"stopped short of 1e-06 on \d of 4 tasks .* off by up to \d"):
        plan, _ = transported(costs, sharpness=1e4)
    assert plan.isfinite().all()


@pytest.mark.parametrize(("neighbors", "alpha"), [(20, 0.99), (4, 0.5), (100, 0.9)])
def test_label_propagation_is_scikit_learns_label_spreading(neighbors: int, alpha: float) -> None:
    """On the same graph; scikit-learn iterates, and classes are equally large since it does not weight labels."""
    bandwidth = 0.3

    def graph(images: np.ndarray, others: np.ndarray) -> np.ndarray:
        count = min(neighbors, len(images) - 1)
        near = NearestNeighbors(n_neighbors=count).fit(images).kneighbors_graph().toarray()
        squared = ((images[:, None] - others[None]) ** 2).sum(2)
        return np.exp(-squared / (2 * bandwidth**2)) * np.maximum(near, near.T)

    def plain(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        images, unknown = unit(torch.cat([support, query])).numpy(), np.full(len(query), -1)
        model = LabelSpreading(kernel=graph, alpha=alpha, max_iter=100_000, tol=1e-13)
        model.fit(images, np.concatenate([labels.numpy(), unknown]))
        return torch.from_numpy(model.label_distributions_[len(support) :]).log()

    adaptation = LabelPropagation(alpha=alpha, neighbors=neighbors, bandwidth=bandwidth)
    check_head(adaptation, plain, atol=1e-6, sizes=(3, 3, 3, 3))


@EACH
def test_a_task_alone_has_the_same_scores(adaptation: TransductiveAdaptation) -> None:
    support, labels, query = draw_tasks()
    together = adaptation.head(support, labels, WAYS).scores(query)
    for task in range(len(support)):
        alone = adaptation.head(support[task : task + 1], labels[task : task + 1], WAYS).scores(query[task : task + 1])
        torch.testing.assert_close(alone[0], together[task], rtol=1e-8, atol=1e-8)


@EACH
def test_what_a_task_lacks_is_said(adaptation: TransductiveAdaptation) -> None:
    support, labels, query = draw_tasks()
    head = adaptation.head(support, labels, WAYS)
    assert head.scores(query[:, :0]).shape == (len(support), 0, WAYS)
    broken = query.clone()
    broken[1, 0, 0] = torch.nan
    with pytest.raises(DivergenceError, match="task 1: the query features are not all finite"):
        head.scores(broken)
    with pytest.raises(DataError, match="these heads take"):
        head.scores(query[..., :-1])
    if adaptation.least_queries > 1:
        with pytest.raises(DataError, match="needs at least 2 of them, but there is 1"):
            head.scores(query[:, :1])
    else:
        assert head.scores(query[:, :1]).isfinite().all()


def test_laplacian_shot_warns_with_the_number_of_tasks() -> None:
    support, labels, query = draw_tasks()
    with pytest.warns(RuntimeWarning, match="did not settle within 1 rounds on 3 of 3 tasks"):
        LaplacianShot(steps=1).head(support, labels, WAYS).scores(query)


@pytest.mark.filterwarnings("ignore:LaplacianShot did not settle")
def test_laplacian_shot_leaves_each_task_at_its_own_round() -> None:
    """However many rounds there are: some tasks of the batch have settled by then, and others have not."""
    generator = torch.Generator().manual_seed(1)
    support, query = (torch.rand(12, count, 3, generator=generator, dtype=torch.float64) for count in (4, 9))
    labels = torch.arange(WAYS).repeat(12, 1)
    for steps in range(1, 40):
        adaptation = LaplacianShot(penalty=0.5, steps=steps)
        together = adaptation.head(support, labels, WAYS).scores(query)
        tasks = zip(support.split(1), labels.split(1), query.split(1))
        alone = [adaptation.head(task, own, WAYS).scores(asked) for task, own, asked in tasks]
        torch.testing.assert_close(together, torch.cat(alone), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (TIM, {"solver": "adm"}, "solver is 'adm'; choose one of: alternating, gradient"),
        (TIM, {"temperature": 0.0}, "temperature is 0.0, but must be positive"),
        (AlphaTIM, {"alpha": 1.0}, "alpha is 1.0, but must be above 1"),
        (LabelPropagation, {"alpha": 1.0}, "alpha is 1.0, but must be at least 0 and below 1"),
        (LaplacianShot, {"neighbors": 0}, "neighbors is 0, but must be positive"),
        (PTMAP, {"rate": 0.0}, "rate is 0.0, but must be positive"),
    ],
)
def test_options_without_sense_are_refused(cls: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**options)


def test_the_tasks_are_unequal() -> None:
    assert len(set(SIZES)) > 2
    assert 0 in QUERIES
