"""What is refused before any work: images that do not fit the network, things that are no split, too few tasks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import make_split
from learner_toys import build
from tsa_toys import domains_data, toy_tsa_maml

import kshot
from kshot.backbones import MLP, Conv4
from kshot.data.dataset import Dataset, Split
from kshot.errors import ConfigError
from kshot.evaluation.features import extract_features
from kshot.evaluation.fit import check_images
from kshot.evaluation.plan import plan_evaluation
from kshot.evaluation.protocol import evaluate, shared_features
from kshot.experiments.adaptation_curves import accuracy_by_groups, adaptation_steps
from kshot.experiments.optimum_distances import optimum_distances
from kshot.experiments.regression import step_errors, task_fits
from kshot.experiments.task_domains import group_usage
from kshot.experiments.task_maps import task_map
from kshot.learners import MAML, ProtoNet, learners
from kshot.measures import ACCURACY, SQUARED_ERROR

SIZES: dict[str, Any] = {"ways": 3, "shots": 2, "tasks": 4}
TEST: dict[str, Any] = SIZES | {"queries": 3}
VIEWS: dict[Callable[..., Any], dict[str, Any]] = {
    adaptation_steps: TEST | {"steps": 1},
    accuracy_by_groups: TEST,
    group_usage: SIZES,
    task_map: SIZES,
    optimum_distances: TEST | {"steps": 1, "optimum_steps": 1},
}


def images(size: int, channels: int, name: str = "test") -> Split:
    return make_split([8] * 8, name=name, size=size, channels=channels, domains=["a"] * 4 + ["b"] * 4)


@pytest.mark.parametrize("name", sorted(learners))
@pytest.mark.parametrize(
    ("size", "channels", "message"),
    [
        (32, 1, "Conv4 was built for 8 features per image and gives 32 for the images of toy/test, 1 x 32 x 32; build"),
        (16, 3, "Conv4 cannot take the images of toy/test, 3 x 16 x 16: .*with in_channels=3 and image_size=16"),
        (8, 1, "Conv4 cannot take the images of toy/test, 1 x 8 x 8: "),
    ],
)
def test_images_of_another_kind_than_the_network_was_built_for_are_refused(
    name: str, size: int, channels: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kshot.evaluation.protocol.for_tasks", None)
    monkeypatch.setattr("kshot.evaluation.protocol.extract_features", None)
    with pytest.raises(ConfigError, match=message):
        evaluate(build(name), images(size, channels), **TEST)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_views_refuse_images_of_another_size(view: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="built for 4 features per image and gives 16"):
        view({"tsa": toy_tsa_maml()}, images(32, 1), **VIEWS[view])


def test_functions_of_other_inputs_are_refused() -> None:
    maml = MAML(MLP((8,), in_channels=3, image_size=1), ways=1)
    for measure in (step_errors, task_fits):
        with pytest.raises(ConfigError, match=r"MLP cannot take the images of sinusoids/test, 1 x 1 x 1"):
            measure({"maml": maml}, kshot.load("sinusoids"))


def test_a_network_that_takes_any_size_is_measured_with_a_warning() -> None:
    torch.manual_seed(0)
    learner = ProtoNet(Conv4(8, in_channels=1, image_size=16, pooling="mean"))
    said = "Conv4 was built for images of 16 x 16 pixels and measures the images of toy/test, 1 x 32 x 32"
    with pytest.warns(UserWarning, match=said):
        assert evaluate(learner, images(32, 1), **TEST).protocol.tasks == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(learner, images(16, 1), **TEST)


def test_the_check_leaves_the_learner_as_it_was(toy_data: Dataset) -> None:
    for name in ("mtl", "maml", "tadam"):
        learner = build(name).train()
        before = {key: value.clone() for key, value in learner.state_dict().items()}
        state = torch.get_rng_state()
        check_images(learner, toy_data.test)
        assert learner.training
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[key], value) for key, value in learner.state_dict().items())


# A dataset stands for its test split, wherever a split is asked for.


def outcome(measured: Any) -> Any:
    """Something that can be compared with ==."""
    if isinstance(measured, torch.Tensor):
        return measured.tolist()
    if isinstance(measured, kshot.Evaluation):
        return measured.protocol, measured.values.tolist()
    return measured.csv() if hasattr(measured, "csv") else measured.protocol


MEASUREMENTS: dict[str, Callable[[Any], Any]] = {
    "evaluate": lambda split: evaluate(build("protonet"), split, **TEST),
    "plan_evaluation": lambda split: plan_evaluation(build("protonet"), split, **TEST, seed=0, within_domain=None),
    "extract_features": lambda split: extract_features(build("protonet"), split),
    "shared_features": lambda split: shared_features(build("protonet"), split),
    **{
        view.__name__: lambda split, view=view, options=options: view({"tsa": toy_tsa_maml()}, split, **options)
        for view, options in VIEWS.items()
    },
}


@pytest.mark.parametrize("name", sorted(MEASUREMENTS))
def test_a_dataset_stands_for_its_test_split(name: str) -> None:
    data, measure = domains_data(), MEASUREMENTS[name]
    assert outcome(measure(data)) == outcome(measure(data.test))
    assert outcome(measure(data)) != outcome(measure(data.val))
    for wrong in ("glyphs", None, data.test.images):
        with pytest.raises(ConfigError, match=f"{type(wrong).__name__} is not a split of a dataset; give one, such as"):
            measure(wrong)


def test_a_family_of_functions_stands_for_its_test_tasks() -> None:
    maml, data = MAML(MLP((8,), in_channels=1, image_size=1), ways=1), kshot.load("sinusoids")
    assert evaluate(maml, data, tasks=3).protocol == evaluate(maml, data.test, tasks=3).protocol
    with pytest.raises(ConfigError, match="MAML changes its network for each task: images have no fixed features"):
        extract_features(maml, data)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sinusoids are tasks of regression and hold no images"):
        extract_features(build("protonet"), data)  # type: ignore[arg-type]


# One task has no interval.


def test_a_single_task_is_refused_if_its_interval_would_be_shown(toy_data: Dataset) -> None:
    tsa = {"tsa": toy_tsa_maml()}
    one: dict[str, Any] = {"ways": 3, "shots": 2, "tasks": 1}
    maml, sinusoids = MAML(MLP((8,), in_channels=1, image_size=1), ways=1), kshot.load("sinusoids")
    for act in (
        lambda: evaluate(build("protonet"), toy_data, **one),
        lambda: adaptation_steps(tsa, domains_data(), **one, queries=3),
        lambda: accuracy_by_groups(tsa, domains_data(), **one, queries=3),
        lambda: task_map(tsa, domains_data(), **one),
        lambda: step_errors({"maml": maml}, sinusoids, tasks=1),
    ):
        with pytest.raises(ConfigError, match="tasks is 1, but must be at least 2: one task alone has no confidence"):
            act()
    assert "nan" not in group_usage(tsa, domains_data(), **one).verdict, "a share of one task has an interval"


def test_one_value_is_written_without_an_interval() -> None:
    nan = float("nan")
    assert ACCURACY.text(0.5, nan) == "50.00 (no interval)"
    assert SQUARED_ERROR.text(0.5, nan, signed=True) == "+0.5000 (no interval)"
    assert ACCURACY.text(0.5, 0.0) == "50.00 ± 0.00"


def test_a_domain_with_one_task_is_shown_without_an_interval() -> None:
    data = domains_data()
    for seed in range(20):
        result = evaluate(build("protonet"), data, **SIZES | {"tasks": 3}, queries=3, within_domain=True, seed=seed)
        parts = result.by_domain()
        if len(parts) == 2:
            alone = next(part for part in parts.values() if part.protocol.tasks == 1)
            assert "(no interval)" in str(alone)
            assert not re.search(r"\bnan\b", repr(alone))
            return
    pytest.fail("no seed draws from both domains")
