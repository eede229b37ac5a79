"""Learners on tasks of regression, through the same training, evaluation and commands as on images."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import kshot
from kshot.backbones import MLP
from kshot.data.episodes import Episodes, TaskShape
from kshot.data.tasks import task_sampler
from kshot.errors import ConfigError
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Evaluation, compare
from kshot.experiments.regression import step_errors, task_fits
from kshot.learners import InitializationLearner, UnicornMAML, learners
from kshot.measures import SQUARED_ERROR
from kshot.report.curves import learning_curves
from kshot.runs.run import Run
from kshot.training import train

DATA = kshot.load("sinusoids")
ADAPTS = sorted(
    name for name, cls in learners.items() if issubclass(cls, InitializationLearner) and cls is not UnicornMAML
)
SHORT = {"shots": 10, "meta_batch": 25, "optimizer": "adam", "patience": 0, "schedule": "constant", "progress": False}
SHORT |= {"tasks_per_epoch": 250, "max_epochs": 2, "validation_tasks": 20, "queries": 10}


def build(name: str, **options: object) -> InitializationLearner:
    torch.manual_seed(0)
    learner = learners[name](MLP((8, 8), in_channels=1, image_size=1), ways=1, **options)
    assert isinstance(learner, InitializationLearner)
    return learner


def tasks(count: int) -> Episodes:
    """Tasks of five support and six query points in float64."""
    found = task_sampler(DATA.train, TaskShape(1, 5, 6), seed=0).episodes(np.arange(count))
    labels = {"support_labels": found.support_labels.double(), "query_labels": found.query_labels.double()}
    return replace(found.with_images(found.support.double(), found.query.double()), **labels)


def plain_query_losses(learner: InitializationLearner, episodes: Episodes, steps: int, head_alone: bool) -> list:
    """The query loss of each task by autograd on one task after the other, written out layer by layer."""
    own = dict(learner.network.named_parameters())
    names = [name for name in own if not head_alone or name.startswith("head.")]

    def squared_error(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for layer in (0, 1):
            place = f"backbone.layers.{layer}.0"
            x = (x @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]).relu()
        return ((x @ weights["head.weight"].T + weights["head.bias"] - y) ** 2).mean()

    losses = []
    for task in range(episodes.tasks):
        weights = dict(own)
        for _ in range(steps):
            loss = squared_error(weights, episodes.support[task], episodes.support_labels[task])
            gradients = torch.autograd.grad(loss, [weights[name] for name in names], create_graph=True)
            weights |= {name: weights[name] - 0.02 * gradient for name, gradient in zip(names, gradients)}
        losses.append(squared_error(weights, episodes.query[task], episodes.query_labels[task]))
    return losses


@pytest.mark.parametrize("tasks_at_once", [1, 4])
@pytest.mark.parametrize(("name", "head_alone"), [("maml", False), ("anil", True)])
def test_meta_gradients_equal_those_of_a_plain_loop_over_tasks(name, head_alone, tasks_at_once):
    learner = build(name, inner_rate=0.02, inner_steps=3, tasks_at_once=tasks_at_once).double()
    measured = learner.accumulate_gradients(tasks(4))
    expected = torch.stack(plain_query_losses(learner, tasks(4), 3, head_alone)).mean()
    gradients = torch.autograd.grad(expected, list(learner.network.parameters()))
    torch.testing.assert_close(measured["loss"], expected.detach())
    for parameter, gradient in zip(learner.network.parameters(), gradients):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 5])
def test_evaluation_measures_the_squared_error_of_each_task(steps):
    learner = build("maml", inner_rate=0.02, test_inner_steps=steps)
    result = evaluate(learner, DATA.train, shots=5, queries=6, tasks=4)
    expected = plain_query_losses(learner.double(), tasks(4), steps, head_alone=False)
    np.testing.assert_allclose(result.values, torch.stack(expected).detach(), rtol=1e-4)
    assert result.measure is SQUARED_ERROR
    assert str(result).startswith(f"maml: {result.mean:.4f} ± {result.ci95:.4f} (5-shot, 6 query points, 4 tasks of")
    with pytest.raises(ConfigError, match="no accuracies but errors"):
        result.accuracies  # noqa: B018


@pytest.mark.parametrize("name", ADAPTS)
def test_every_learner_that_adapts_weights_learns_sinusoids(name):
    learner = build(name, **({"inner_rate": 0.01} if name == "imaml" else {}))
    before = evaluate(learner, DATA.test, shots=10, tasks=200)
    train(learner, DATA, **SHORT | {"tasks_per_epoch": 500, "max_epochs": 1}, learning_rate=0.01)
    gain = compare(before, evaluate(learner, DATA.test, shots=10, tasks=200))
    assert gain.mean > 2 * gain.ci95


def test_a_head_that_is_made_of_classes_is_refused():
    with pytest.raises(ConfigError, match="UnicornMAML tells classes apart, and tasks of one way are regression"):
        train(UnicornMAML(MLP((8, 8), in_channels=1, image_size=1)), DATA, **SHORT)


def test_maml_beats_the_network_pretrained_on_all_tasks_and_the_untrained_one_after_five_steps():
    """Finn et al. (2017), section 5.1: a network fitted to the average of all tasks has nothing to adapt from."""
    trained, pretrained, untrained = (
        build("maml", inner_rate=0.01, inner_steps=steps, test_inner_steps=5) for steps in (1, 0, 1)
    )
    longer = {"tasks_per_epoch": 5000, "max_epochs": 1, "validation_tasks": 2, "learning_rate": 0.01}
    for learner in (trained, pretrained):
        train(learner, DATA, **SHORT | longer)
    measured = [evaluate(each, DATA.test, shots=10, queries=50, tasks=300) for each in (trained, pretrained, untrained)]
    for other in measured[1:]:
        gain = compare(other, measured[0])
        assert gain.mean > 3 * gain.ci95


# Training, its files, and the way back.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of MAML."""
    folder = tmp_path_factory.mktemp("runs") / "maml"
    train(build("maml", inner_rate=0.01, inner_steps=1), DATA, run=folder, **SHORT)
    return folder


def test_metrics_name_what_they_are(run):
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"epoch", "tasks", "loss", "validation_squared_error", "validation_ci95", "learning_rate"}
    assert set(rows[0]) == names
    learner, data = Run(run).learner, Run(run).data
    assert data == DATA
    errors = [float(row["validation_squared_error"]) for row in rows]
    best = evaluate(learner, data.val, shots=10, queries=15, tasks=20)
    assert best.mean == pytest.approx(min(errors), rel=1e-5)
    figure = learning_curves(Run(run).metrics(), "maml")
    best_text = figure.legends[0].get_texts()[-1].get_text()
    assert best_text == f"best {min(errors):.3f}, epoch {1 + errors.index(min(errors))}"
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), errors)
    assert figure.axes[0].get_ylabel() == "mean squared error"


def test_the_best_epoch_is_the_one_with_the_least_error(monkeypatch):
    errors = iter([3.0, 1.0, 2.0])
    made = [Evaluation("maml", "own", None, np.full(2, error), 0.0, measure=SQUARED_ERROR) for error in errors]
    monkeypatch.setattr("kshot.training.validation.evaluate", lambda *args, **kwargs: made.pop(0))
    result = train(build("maml"), DATA, **SHORT | {"max_epochs": 3, "tasks_per_epoch": 25}).result
    assert (result.best_epoch, result.best_error) == (2, 1.0)
    assert np.isnan(result.best_accuracy)


def test_a_resumed_run_repeats_the_numbers(run, tmp_path):
    learner = build("maml", inner_rate=0.01, inner_steps=1)
    train(learner, DATA, run=tmp_path / "cut", **SHORT | {"max_epochs": 1})
    again = build("maml", inner_rate=0.01, inner_steps=1)
    train(again, DATA, run=tmp_path / "cut", resume=True, **SHORT)
    assert (tmp_path / "cut" / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    for ours, theirs in zip(again.parameters(), Run(run).learner.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_results_are_saved_with_their_measure(tmp_path):
    result = evaluate(build("maml"), DATA.test, shots=5, tasks=10)
    again = Evaluation.load(result.save(tmp_path))
    np.testing.assert_array_equal(again.values, result.values)
    assert (again.measure, again.protocol) == (SQUARED_ERROR, result.protocol)
    assert str(compare(result, again)) == "+0.0000 ± 0.0000, paired over the same tasks"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: train(learners["mtl"](MLP(in_channels=1, image_size=1), num_classes=3), DATA),
            "MultiTask tells classes apart",
        ),
        (
            lambda: train(learners["supervised"](MLP(in_channels=1, image_size=1), num_classes=3), DATA),
            "Supervised tells classes",
        ),
        (lambda: evaluate(learners["protonet"](MLP(in_channels=1, image_size=1)), DATA.test), "ProtoNet tells classes"),
        (lambda: train(build("maml"), DATA, ways=5), "built for 1-way tasks and cannot learn 5-way"),
        (lambda: train(build("maml"), DATA, within_domain=True), "leave out within_domain"),
        (lambda: train(build("maml"), kshot.load("quadratics")), "in_channels=1, but quadratics/train has"),
        (lambda: evaluate(build("maml"), DATA.test, features=torch.zeros(3, 2)), "sinusoids/test has 0 images"),
        (lambda: evaluate(build("maml"), DATA.test, queries=0), "queries is 0"),
    ],
)
def test_what_cannot_be_is_refused(act: Callable[[], object], message: str):
    with pytest.raises(ConfigError, match=message):
        act()


def test_a_run_of_regression_classifies_no_photographs(run):
    with pytest.raises(ConfigError, match="trained on sinusoids, whose tasks have no images"):
        _ = Run(run).image_form


def test_an_mlp_learns_classes_of_images_too(toy_data):
    torch.manual_seed(0)
    learner = learners["protonet"](MLP(in_channels=1, image_size=16))
    sizes = {"ways": 3, "shots": 2, "queries": 3, "tasks_per_epoch": 30, "max_epochs": 1, "validation_tasks": 5}
    train(learner, toy_data, progress=False, **sizes)
    assert evaluate(learner, toy_data.test, ways=3, shots=2, queries=5, tasks=50).mean > 0.8


# The commands.


def test_the_commands_say_squared_error_with_its_interval(say, run, tmp_path):
    words = ["train", "--data", "sinusoids", "--learner", "anil", "--tasks-per-epoch", 100, "--max-epochs", 1]
    code, out, _ = say(*words, "--validation-tasks", 10, "--run", "anil", "--progress", "false")
    assert code == 0
    assert "best validation    mean squared error " in out
    assert "points/s" in out
    shutil.copytree(run, tmp_path / "maml")
    code, out, _ = say("compare", "anil", "maml", "--shots", 5, 10, "--tasks", 20)
    assert code == 0
    assert "Mean squared error, mean ± 95% confidence interval over tasks." in out
    assert "5 and 10 shots, 15 query points, 20 tasks of sinusoids/test, task seed 0" in out
    saved = [next((tmp_path / name / "evaluation").glob("*-10shot-*")) for name in ("anil", "maml")]
    first, second = (Evaluation.load(path) for path in saved)
    assert SQUARED_ERROR.text(second.mean, second.ci95) in out
    difference = compare(second, first)
    assert SQUARED_ERROR.text(difference.mean, difference.ci95, signed=True) in out
    code, out, _ = say("evaluate", "maml", "--shots", 5, "--tasks", 20, "--style", "csv")
    assert code == 0
    assert float(next(csv.DictReader(out.strip().splitlines()))["squared_error"]) > 0
    assert say("report", "anil", "maml")[0] == 0
    assert "Mean squared error" in (tmp_path / "report.html").read_text()
    code, _, err = say("train", "--data", "sinusoids")
    assert (code, "choose a learner that adapts weights, such as maml" in err) == (2, True)
    code, _, err = say("data", "show", "sinusoids")
    assert (code, "hold no images" in err) == (2, True)


@pytest.mark.parametrize("style", ["text", "csv"])
def test_accuracies_and_errors_do_not_share_a_table(say, run, runs, tmp_path, style):
    shutil.copytree(run, tmp_path / "maml")
    code, _, err = say("evaluate", "maml", runs / "mtl-0", "--tasks", 5, "--queries", 4, "--style", style)
    assert code == 2
    assert "accuracies and errors of regression" in err


def test_errors_and_pictures_by_the_number_of_steps(say, run, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(run, tmp_path / name)
    words = ["--shots", 5, 10, "--steps", 0, 3, "--tasks", 20, "--queries", 7, "--task", 2]
    code, out, _ = say("regression", "one", "two", *words, "--out", "drawn")
    assert code == 0
    assert "7 query points, 20 tasks of sinusoids/test, seed 0" in out
    rows = list(csv.DictReader((tmp_path / "drawn" / "errors.csv").open()))
    assert [(row["name"], row["shots"], row["steps"]) for row in rows[:4]] == [
        ("one", "5", "0"),
        ("one", "5", "3"),
        ("two", "5", "0"),
        ("two", "5", "3"),
    ]
    assert [row["difference"] for row in rows[:4]] == ["", "", "0.0", "0.0"]
    learner, data = Run(run).learner, Run(run).data
    assert isinstance(learner, InitializationLearner)
    learner.test_inner_steps = 3
    expected = evaluate(learner, data.test, shots=5, queries=7, tasks=20)
    assert float(rows[1]["squared_error"]) == pytest.approx(expected.mean, rel=1e-6)
    assert SQUARED_ERROR.text(expected.mean, expected.ci95) in out
    points = list(csv.DictReader((tmp_path / "drawn" / "predictions-10shot.csv").open()))
    assert sum(row["support"] == "1" for row in points) == 2 * 10
    assert (tmp_path / "drawn" / "predictions.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_are_the_adapted_network_on_a_grid(run):
    learner, data = Run(run).learner, Run(run).data
    found = task_fits({"maml": learner}, data, shots=5, steps=(0, 2), task=3)[0]
    assert isinstance(learner, InitializationLearner)
    assert learner.test_inner_steps == 10, "as it was"
    episodes = task_sampler(data.test, TaskShape(1, 5, 0), seed=0).episodes(np.asarray([3]))
    np.testing.assert_allclose(found.support, episodes.support[0, :, 0])
    np.testing.assert_allclose(np.interp(found.support, found.inputs, found.truth), found.support_values, atol=0.01)
    grid = torch.from_numpy(found.inputs).float()[:, None]
    expected = learner.network(grid)[:, 0].detach().numpy()
    np.testing.assert_allclose(found.by_steps[0], expected, rtol=1e-4, atol=1e-5)
    support = (episodes.support[0], episodes.support_labels[0])
    for _ in range(2):
        learner.zero_grad()
        (learner.network(support[0]) - support[1]).square().mean().backward()
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter -= 0.01 * parameter.grad
    expected = learner.network(grid)[:, 0].detach().numpy()
    np.testing.assert_allclose(found.by_steps[2], expected, rtol=1e-4, atol=1e-5)


def test_pictures_are_refused_where_there_is_nothing_to_draw(toy_data):
    quadratics = kshot.load("quadratics")
    learner = learners["maml"](MLP((8,), in_channels=10, image_size=1), ways=1, inner_rate=1e-3)
    with pytest.raises(ConfigError, match="functions of 10 variables"):
        task_fits({"maml": learner}, quadratics)
    assert len(step_errors({"maml": learner}, quadratics, shots=[5], steps=[0, 1], tasks=5)) == 2
    with pytest.raises(ConfigError, match="holds classes and no functions"):
        step_errors({"maml": learner}, toy_data)
    with pytest.raises(ConfigError, match="takes no gradient steps"):
        step_errors({"protonet": learners["protonet"](MLP(in_channels=1, image_size=1))}, DATA)
    with pytest.raises(ConfigError, match="steps is -1"):
        step_errors({"maml": build("maml")}, DATA, steps=[-1])
