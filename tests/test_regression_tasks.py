"""Families of functions: each task is a pure function of its address, and drawn from the distribution of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from kshot import seeding
from kshot.backbones import MLP
from kshot.data import catalog, load, load_images, prepare
from kshot.data.episodes import EpisodeSampler, TaskShape
from kshot.data.regression import (
    FAMILIES,
    Family,
    RegressionDataset,
    normal,
    point_counters,
    uniform,
)
from kshot.data.regression_sampler import RegressionSampler
from kshot.data.tasks import task_sampler
from kshot.errors import ConfigError, DataError
from kshot.evaluation import evaluate
from kshot.learners import learners
from kshot.training import train

SHAPE = TaskShape(1, 5, 10)


@pytest.fixture(params=sorted(FAMILIES))
def family(request) -> str:
    return request.param


def sampler(family: str, split: str = "train", shape: TaskShape = SHAPE, seed: int = 0) -> RegressionSampler:
    return RegressionSampler(RegressionDataset(FAMILIES[family]).split(split), shape, seed=seed)


def uniform_between(values: np.ndarray, low: float, high: float) -> bool:
    return stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_shapes_and_types(family):
    episodes, size = sampler(family).episodes(np.arange(7)), FAMILIES[family].input_size
    assert (episodes.support.shape, episodes.query.shape) == ((7, 5, size), (7, 10, size))
    assert (episodes.support_labels.shape, episodes.query_labels.shape) == ((7, 5, 1), (7, 10, 1))
    assert {part.dtype for part in (episodes.images(), episodes.labels())} == {torch.float32}
    assert (episodes.tasks, episodes.ways) == (7, 1)
    assert len(set(episodes.keys.tolist())) == 7


def test_a_task_does_not_depend_on_the_others_in_its_batch(family):
    many, few = sampler(family).episodes(np.arange(20)), sampler(family).episodes(np.asarray([13, 4]))
    for position, number in enumerate([13, 4]):
        torch.testing.assert_close(few.images()[position], many.images()[number], rtol=0, atol=0)
        torch.testing.assert_close(few.labels()[position], many.labels()[number], rtol=0, atol=0)


@pytest.mark.parametrize("changed", [{"split": "test"}, {"seed": 1}, {"shape": TaskShape(1, 6, 9)}])
def test_another_split_seed_or_shape_has_other_tasks(family, changed):
    first, second = (maker.episodes(np.arange(50)) for maker in (sampler(family), sampler(family, **changed)))
    assert not np.isin(second.labels().numpy(), first.labels().numpy()).any()


def test_the_first_task_is_the_same_on_every_machine():
    episodes = sampler("sinusoids").episodes(np.zeros(1, np.int64))
    np.testing.assert_allclose(episodes.support[0, :2, 0], [-1.323825, 2.439585], atol=1e-5)
    np.testing.assert_allclose(episodes.support_labels[0, :2, 0], [0.129121, 0.01391], atol=1e-5)


def test_sinusoids_are_sine_waves_of_the_published_distribution():
    episodes = sampler("sinusoids").episodes(np.arange(4000))
    x, y = episodes.images()[..., 0].double().numpy(), episodes.labels()[..., 0].double().numpy()
    # a sin(x - p) is a linear combination of sin x and cos x
    waves = np.stack([np.sin(x), np.cos(x)], -1)
    coefficients = np.linalg.pinv(waves) @ y[..., None]
    np.testing.assert_allclose((waves @ coefficients)[..., 0], y, atol=1e-5)
    along, across = coefficients[:, 0, 0], -coefficients[:, 1, 0]
    amplitude, phase = np.hypot(along, across), np.arctan2(across, along)
    assert uniform_between(amplitude, 0.1, 5)
    assert uniform_between(phase, 0, np.pi)
    assert np.abs(np.corrcoef([amplitude, phase, x[:, 0], x[:, 14]]) - np.eye(4)).max() < 0.06
    assert uniform_between(x.reshape(-1), -5, 5)


def test_quadratics_are_distances_of_the_published_distribution():
    quadratics, keys = FAMILIES["quadratics"], seeding.bits(0, np.arange(3000))
    centre, width = quadratics.parameters(keys)
    points = quadratics.points(keys, np.arange(6))
    assert uniform_between(width, 1.3, 1.6)
    assert stats.kstest(centre.reshape(-1), "norm").pvalue > 1e-3
    spread = (points - centre[:, None]) / width[:, None, None]
    assert stats.kstest(spread.reshape(-1), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(spread.reshape(3000, -1).T) - np.eye(60)).max() < 0.1
    expected = [[w * sum((x - m) ** 2) for x in task] for task, m, w in zip(points[:5], centre[:5], width[:5])]
    np.testing.assert_allclose(quadratics.values(keys[:5], points[:5]), expected)
    seen = quadratics.inputs(points)
    np.testing.assert_allclose(np.linalg.norm(seen, axis=-1), 10**0.5)
    np.testing.assert_allclose(np.cross(seen[..., :3], points[..., :3]), 0, atol=1e-12)


def test_curves_are_sine_waves_lines_and_parabolas():
    curves, keys = FAMILIES["curves"], seeding.bits(0, np.arange(3000))
    kind = curves.kind(keys)
    assert stats.chisquare(np.bincount(kind, minlength=3)).pvalue > 1e-3
    x = np.broadcast_to(np.linspace(-5, 5, 41)[:, None], (3000, 41, 1))
    y = curves.values(keys, x)
    for number, degree in ((1, 1), (2, 2)):
        coefficients = np.polynomial.polynomial.polyfit(x[0, :, 0], y[kind == number].T, degree)
        fitted = np.polynomial.polynomial.polyval(x[0, :, 0], coefficients)
        np.testing.assert_allclose(fitted, y[kind == number], atol=1e-9)
        if number == 1:
            assert all(uniform_between(each, -3, 3) for each in coefficients)
        else:
            centre = -coefficients[1] / 2 / coefficients[2]
            height = coefficients[0] - coefficients[2] * centre**2
            assert uniform_between(np.abs(coefficients[2]), 0.02, 0.15)
            assert 0.4 < (coefficients[2] < 0).mean() < 0.6
            assert uniform_between(centre, -3, 3)
            assert uniform_between(height, -3, 3)
    waves = y[kind == 0]
    assert np.abs(waves).max() <= 5
    peaks = np.abs(waves).max(1)
    assert stats.kstest(peaks, stats.uniform(0.1, 4.9).cdf).statistic < 0.06, "whose grid sees nearly every crest"


def test_the_kinds_of_curves_are_the_domains_of_tasks():
    maker = sampler("curves")
    names = maker.domains(np.arange(50))
    assert set(names) == {"sine wave", "line", "parabola"}
    line = int(np.flatnonzero(names == "line")[0])
    y = maker.values(np.asarray([line]), np.linspace(-5, 5, 3)[:, None])[0]
    assert y[1] == pytest.approx((y[0] + y[2]) / 2)
    assert set(sampler("sinusoids").domains(np.arange(5))) == {"all"}


def test_the_true_function_goes_through_the_points_of_its_task():
    maker = sampler("sinusoids")
    episodes, points = maker.episodes(np.asarray([8])), np.linspace(-5, 5, 1001)[:, None]
    curve = maker.values(np.asarray([8, 9]), points)
    assert curve.shape == (2, 1001)
    found = np.interp(episodes.support[0, :, 0], points[:, 0], curve[0])
    np.testing.assert_allclose(found, episodes.support_labels[0, :, 0], atol=1e-3)


def test_families_load_by_name_and_need_no_preparation(family, tmp_path):
    data = load(family, tmp_path)
    assert isinstance(data, RegressionDataset)
    assert [data.split(name).name for name in ("train", "val", "test", "train+val")] == [
        data.train.name,
        data.val.name,
        data.test.name,
        "train+val",
    ]
    assert family in [entry.name for entry in catalog(tmp_path) if entry.prepared]
    with pytest.raises(DataError, match="no split 'all'"):
        data.split("all")
    with pytest.raises(ConfigError, match="drawn as they are needed"):
        prepare(family, root=tmp_path)
    with pytest.raises(ConfigError, match="hold no images"):
        load_images(family, tmp_path)


def test_tasks_that_cannot_be_are_refused(toy_split):
    split = load("sinusoids").train
    with pytest.raises(ConfigError, match="ways is 5, but the tasks of sinusoids have one output"):
        task_sampler(split, TaskShape(5, 1, 1), seed=0)
    with pytest.raises(ConfigError, match="leave out within_domain"):
        task_sampler(split, SHAPE, seed=0, within_domain=True)
    with pytest.raises(ConfigError, match="ways is 1, but must be at least 2"):
        EpisodeSampler(toy_split([20, 20]), SHAPE, seed=0)
    assert isinstance(task_sampler(toy_split([20, 20]), TaskShape(2, 1, 1), seed=0), EpisodeSampler)


class Planes(Family):
    """y = <a, x> with a ~ N(0, I) and x uniform in a square."""

    name = "planes"
    description = "regression: planes through the origin"
    input_size = 2

    def points(self, keys, numbers):
        return uniform((-2, 2), keys[:, None, None], point_counters(numbers, self.input_size))

    def values(self, keys, points):
        slopes = normal(keys[:, None], np.arange(self.input_size))
        return (points * slopes[:, None]).sum(-1)


def test_a_family_of_ones_own_is_trained_and_evaluated_on():
    data = RegressionDataset(Planes())
    assert (data.name, data.train.image_shape) == ("planes", (2, 1, 1))
    torch.manual_seed(0)
    learner = learners["maml"](MLP((20, 20), in_channels=2, image_size=1), ways=1)
    before = evaluate(learner, data.test, shots=10, queries=10, tasks=50).mean
    options = {"tasks_per_epoch": 600, "meta_batch": 4, "validation_tasks": 10, "progress": False}
    train(learner, data, shots=10, queries=10, max_epochs=1, learning_rate=1e-2, **options)
    assert evaluate(learner, data.test, shots=10, queries=10, tasks=50).mean < 0.8 * before


def test_points_of_a_family_are_independent_of_its_functions_and_of_each_other():
    keys = seeding.bits(0, np.arange(3000))
    family = Planes()
    points = family.points(keys, np.arange(3)).reshape(3000, -1)
    slopes = normal(keys[:, None], np.arange(2))
    assert np.abs(np.corrcoef(np.concatenate([points, slopes], 1).T) - np.eye(8)).max() < 0.08
    np.testing.assert_array_equal(family.points(keys, np.asarray([2])), family.points(keys, np.arange(3))[:, 2:])


class Transposed(Planes):
    name = "transposed"

    def values(self, keys, points):
        return super().values(keys, points).T


class Flat(Planes):
    name = "flat"

    def points(self, keys, numbers):
        return super().points(keys, numbers)[..., 0]

    def values(self, keys, points):
        return points


class Infinite(Planes):
    name = "infinite"

    def values(self, keys, points):
        return np.full(points.shape[:2], np.nan)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Transposed(), r"the family transposed: values has the shape \(15, 7\), but must have \(7, 15\)"),
        (Flat(), r"the family flat: inputs\(points\(...\)\) has the shape \(7, 15\), but must have \(7, 15, 2\)"),
        (Infinite(), "the family infinite: values holds numbers that are not finite"),
    ],
)
def test_a_family_that_breaks_its_contract_is_named(family, message):
    maker = RegressionSampler(RegressionDataset(family).train, SHAPE, seed=0)
    with pytest.raises(DataError, match=message):
        maker.episodes(np.arange(7))


def test_what_is_no_family_is_refused():
    with pytest.raises(ConfigError, match=r"takes an instance of Family, .*; write RegressionDataset\(Planes\(\)\)"):
        RegressionDataset(Planes)
    with pytest.raises(ConfigError, match=r"takes an instance of Family, not 'planes'; derive a class from Family"):
        RegressionDataset("planes")
    nameless = type("Nameless", (Family,), {"points": Planes.points, "values": Planes.values})
    with pytest.raises(ConfigError, match="Nameless has no name, description, input_size; set it in the class body"):
        RegressionDataset(nameless())
