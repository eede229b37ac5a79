"""The one objective against scikit-learn, plain loops and finite differences; and what the experiment says of it."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.errors import ConfigError, DataError, DivergenceError
from kshot.experiments import experiments, taxonomy
from kshot.experiments.taxonomy import LINES, Line, Taxonomy
from kshot.experiments.taxonomy_lines import Comparison
from kshot.theory import last_layer as formula
from kshot.theory import margin


def feature_tasks(ways: int = 4, dimension: int = 3, tasks: int = 3) -> Episodes:
    """Tasks with features in place of images; classes have 2, 3, ... support features."""
    generator = torch.Generator().manual_seed(5)
    counts = torch.arange(ways) + 2
    labels = torch.arange(ways).repeat_interleave(counts).expand(tasks, -1)
    query_labels = torch.arange(ways).repeat_interleave(2).expand(tasks, -1)
    support, query = (
        torch.randn(*part.shape, dimension, generator=generator, dtype=torch.float64) for part in (labels, query_labels)
    )
    return Episodes(support, labels, query, query_labels, torch.zeros(tasks, ways), np.empty(0, np.uint64))


def zeros(tasks: Episodes, bias: int = 0) -> Tensor:
    return torch.zeros(tasks.tasks, tasks.ways, tasks.support.shape[2] + bias, dtype=torch.float64)


def heads(tasks: Episodes, scores, loss, regularizer, start: Tensor) -> Tensor:
    return regularizer.argmin(lambda head: loss(scores(head, tasks.support), tasks.support_labels), start).detach()


@pytest.mark.parametrize("c", [0.1, 3.0, 100.0])
def test_l2_and_cross_entropy_give_logistic_regression(c: float) -> None:
    tasks = feature_tasks()
    regularizer = formula.Penalty(formula.l2_but_for_bias(1 / (2 * c)))
    found = heads(tasks, formula.affine, formula.summed_cross_entropy, regularizer, zeros(tasks, bias=1))
    for features, labels, head in zip(tasks.support.numpy(), tasks.support_labels.numpy(), found.numpy()):
        model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(features, labels)
        np.testing.assert_allclose(head[:, :-1], model.coef_, atol=1e-5 * np.abs(model.coef_).max())
        bias = model.intercept_ - model.intercept_.mean()
        np.testing.assert_allclose(head[:, -1], bias, atol=1e-5 * np.abs(bias).max())


@pytest.mark.parametrize("strength", [0.01, 2.0])
def test_l2_and_squared_error_give_ridge_regression(strength: float) -> None:
    tasks = feature_tasks()
    regularizer = formula.Penalty(formula.l2(strength))
    found = heads(tasks, formula.linear, formula.squared_error, regularizer, zeros(tasks))
    for features, labels, head in zip(tasks.support.numpy(), tasks.support_labels.numpy(), found.numpy()):
        model = Ridge(alpha=strength, fit_intercept=False).fit(features, np.eye(4)[labels])
        np.testing.assert_allclose(head, model.coef_, atol=1e-10)


def test_no_penalty_and_own_score_give_class_means() -> None:
    tasks = feature_tasks()
    regularizer = formula.Penalty(formula.no_penalty)
    found = heads(tasks, formula.negative_squared_distance, formula.own_score, regularizer, zeros(tasks))
    for task in range(tasks.tasks):
        means = [tasks.support[task][tasks.support_labels[task] == way].mean(0) for way in range(4)]
        torch.testing.assert_close(found[task], torch.stack(means))


def test_early_stopping_is_gradient_descent_task_by_task() -> None:
    tasks = feature_tasks()
    start = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = heads(tasks, formula.affine, formula.mean_cross_entropy, formula.EarlyStopping(3, 0.5), start)
    for task in range(3):
        weight, bias = start[task, :, :-1].clone().requires_grad_(), start[task, :, -1].clone().requires_grad_()
        for _ in range(3):
            loss = torch.nn.functional.cross_entropy(tasks.support[task] @ weight.T + bias, tasks.support_labels[task])
            gradients = torch.autograd.grad(loss, (weight, bias))
            weight, bias = (
                (part - 0.5 * gradient).detach().requires_grad_() for part, gradient in zip((weight, bias), gradients)
            )
        torch.testing.assert_close(found[task], torch.cat([weight, bias.unsqueeze(1)], 1))


def test_joint_heads_stay_what_they_are() -> None:
    start = zeros(feature_tasks())
    assert formula.Joint().argmin(lambda head: head.sum((1, 2)), start) is start


CHOICES = {
    "ridge": (formula.linear, formula.squared_error, formula.Penalty(formula.l2(0.5)), 0),
    "logistic": (formula.affine, formula.summed_cross_entropy, formula.Penalty(formula.l2_but_for_bias(0.2)), 1),
    "protonet": (formula.negative_squared_distance, formula.own_score, formula.Penalty(formula.no_penalty), 0),
    "anil": (formula.affine, formula.mean_cross_entropy, formula.EarlyStopping(3, 0.3), 1),
    "joint": (formula.linear, formula.mean_cross_entropy, formula.Joint(), 0),
}


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_gradients_of_the_objective_by_finite_differences(choice: tuple) -> None:
    """The argmin counts, too: features move the head that is fitted to them."""
    tasks, (scores, loss, regularizer, bias) = feature_tasks(ways=3, dimension=2, tasks=2), choice
    start = zeros(tasks, bias) + 0.1 * torch.randn(2, 3, 2 + bias, generator=torch.Generator().manual_seed(2)).double()

    def value(support: Tensor, query: Tensor) -> Tensor:
        moved = tasks.with_images(support, query)
        return formula.objective(
            moved, start, scores=scores, loss=loss, regularizer=regularizer, outer_loss=formula.mean_cross_entropy
        )

    assert torch.autograd.gradcheck(
        value, (tasks.support.requires_grad_(), tasks.query.requires_grad_()), fast_mode=True
    )


def test_the_margin_is_that_of_scikit_learn() -> None:
    tasks = feature_tasks(dimension=12)
    regularizer = margin.Margin(tasks.support, tasks.support_labels, 0.3)
    loss = margin.summed_hinge(0.3)
    found = heads(tasks, formula.linear, loss, regularizer, zeros(tasks))

    def total(head: Tensor) -> Tensor:
        return loss(formula.linear(head, tasks.support), tasks.support_labels) + formula.l2(0.5)(head)

    for task, (features, labels) in enumerate(zip(tasks.support.numpy(), tasks.support_labels.numpy())):
        model = LinearSVC(C=0.3, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=1_000_000)
        np.testing.assert_allclose(found[task], model.fit(features, labels).coef_, atol=1e-5)
    generator = torch.Generator().manual_seed(3)
    for size in (1e-2, 1e-4, 1e-6):
        other = found + size * torch.randn(found.shape, generator=generator, dtype=torch.float64)
        assert (total(other) >= total(found)).all()


def test_gradients_through_the_margin_by_finite_differences() -> None:
    tasks = feature_tasks(ways=3, dimension=10, tasks=2)

    def value(support: Tensor, query: Tensor) -> Tensor:
        return formula.objective(
            tasks.with_images(support, query),
            zeros(tasks),
            scores=formula.linear,
            loss=margin.summed_hinge(0.2),
            regularizer=margin.Margin(support, tasks.support_labels, 0.2),
            outer_loss=formula.mean_cross_entropy,
        )

    inputs = (tasks.support.requires_grad_(), tasks.query.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True)


def test_hinge_losses_are_those_of_a_plain_loop() -> None:
    scores, labels = torch.randn(2, 5, 3).double(), torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, 0, 0]])
    expected = [
        0.7 * sum(max(float(row[c]) + (c != own) for c in range(3)) - float(row[own]) for row, own in zip(each, of))
        for each, of in zip(scores, labels.tolist())
    ]
    torch.testing.assert_close(margin.summed_hinge(0.7)(scores, labels), torch.tensor(expected).double())


def test_losses_and_scores_are_what_they_say() -> None:
    scores, labels = torch.randn(2, 5, 3).double(), torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, 0, 0]])
    plain = torch.stack([torch.nn.functional.cross_entropy(*pair) for pair in zip(scores, labels)])
    torch.testing.assert_close(formula.mean_cross_entropy(scores, labels), plain)
    torch.testing.assert_close(formula.summed_cross_entropy(scores, labels), 5 * plain)
    errors = torch.stack([(each - torch.eye(3)[of]).square().sum() for each, of in zip(scores, labels)])
    torch.testing.assert_close(formula.squared_error(scores, labels), errors)
    own = torch.stack([-each[torch.arange(5), of].sum() for each, of in zip(scores, labels)])
    torch.testing.assert_close(formula.own_score(scores, labels), own)
    head, features = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 4).double()
    torch.testing.assert_close(formula.negative_squared_distance(head, features), -(torch.cdist(features, head) ** 2))


def test_the_objective_is_the_mean_over_tasks_of_the_query_loss() -> None:
    tasks, start = feature_tasks(), zeros(feature_tasks()) + 1
    value = formula.objective(
        tasks,
        start,
        scores=formula.linear,
        loss=formula.squared_error,
        regularizer=formula.Joint(),
        outer_loss=formula.squared_error,
    )
    expected = [
        (query @ torch.ones(3, 4).double() - torch.eye(4)[labels]).square().sum()
        for query, labels in zip(tasks.query, tasks.query_labels)
    ]
    torch.testing.assert_close(value, torch.stack(expected).mean())


def test_a_head_that_loss_and_penalty_leave_open_is_refused() -> None:
    tasks = feature_tasks()
    with pytest.raises(DataError, match="task 0 is not strictly convex"):
        heads(tasks, formula.affine, formula.summed_cross_entropy, formula.Penalty(formula.no_penalty), zeros(tasks, 1))


def test_a_minimum_that_does_not_exist_is_not_found() -> None:
    falling = formula.Penalty(lambda head: head.neg().exp().sum((1, 2)))
    with pytest.raises(DivergenceError, match="Newton"):
        falling.argmin(lambda head: head.new_zeros(len(head)), torch.zeros(1, 2, 2, dtype=torch.float64))


# The experiment


@pytest.fixture(scope="module")
def findings():
    return Taxonomy(tasks=2, seeds=(0, 7)).run()


def test_every_line_agrees_with_its_learner(findings) -> None:
    rows = list(csv.DictReader(io.StringIO(findings.csv())))
    assert {row["learner"] for row in rows} == {each.learner for each in LINES}
    assert len(rows) == 2 * len(LINES)
    for row in rows:
        assert float(row["difference"]) < 1e-13, row["learner"]
        has_gradient = not row["learner"].startswith("logistic")
        bound = 1e-9 if "SVM" in row["learner"] else 1e-12  # the learner's solver stops at a tolerance
        assert not has_gradient or float(row["gradient_difference"]) < bound, row["learner"]
        assert float(row["objective"]) > 0.1
    assert f"all {len(LINES)} agree" in findings.verdict


@pytest.mark.parametrize("other", ["value", "gradient"])
def test_a_learner_of_another_objective_is_told_apart(other: str, monkeypatch) -> None:
    def compare(episodes: Episodes, backbone: torch.nn.Module) -> Comparison:
        right = next(each for each in LINES if each.learner == "ridge head").compare(episodes, backbone)
        change = 1e-6 if other == "value" else 1e-6 * (right.by_learner - right.by_learner.detach())
        return Comparison(right.by_learner + change, right.by_formula, right.parameters)

    monkeypatch.setattr(taxonomy, "LINES", [*LINES[:1], Line("impostor", "f", "loss", "R", compare)])
    assert "impostor DIFFER" in Taxonomy(seeds=(0,)).run().verdict


def test_findings_depend_on_the_seeds_alone(findings) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = Taxonomy(tasks=2, seeds=(7,)).run().rows
    assert torch.equal(torch.get_rng_state(), before)
    assert [row["objective"] for row in again] == [row["objective"] for row in findings.rows if row["seed"] == 7]
    for each in LINES:
        assert len({row["objective"] for row in findings.rows if row["learner"] == each.learner}) == 2


def test_anil_is_maml_on_the_head_alone(findings) -> None:
    objectives = {(row["learner"], row["seed"]): row["objective"] for row in findings.rows}
    for seed in (0, 7):
        assert objectives["ANIL", seed] == pytest.approx(objectives["MAML, head alone", seed], rel=1e-12)


def test_picture_can_be_drawn(findings, tmp_path) -> None:
    findings.figure().savefig(tmp_path / "picture.png", dpi=40)
    assert (tmp_path / "picture.png").stat().st_size > 3000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 2}, "ways"),
        ({"ways": 21}, "ways"),
        ({"shots": 0}, "shots"),
        ({"queries": 0}, "queries"),
        ({"tasks": 0}, "tasks"),
        ({"seeds": ()}, "seeds"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiments["taxonomy"](**options)
