"""What MAML and TSA-MAML learn on mixtures of tasks: the middle of the groups, and their centres."""

from __future__ import annotations

import torch
from theory_toys import generator, mixture_of, vectors

from kshot.experiments.initializations import Initializations, MetaTraining, estimated_optima, maml, tsa_maml
from kshot.theory import Linear


def test_maml_and_tsa_maml_find_the_middle_and_the_centres() -> None:
    mixture, training = mixture_of(Linear()), MetaTraining(shots=10, rate=1.0)
    one = maml(mixture, training, generator())
    assert (one.points[0] - mixture.centres.mean(0)).norm() < 0.5
    assert torch.equal(one.origin, one.points[0])
    several = tsa_maml(mixture, training, start=one, generator=generator(), groups=3)
    nearest = torch.cdist(mixture.centres, several.points).min(1)
    assert nearest.values.max() < 0.3
    assert sorted(nearest.indices.tolist()) == [0, 1, 2]
    tasks = mixture.sample(500, generator(1), shots=10)
    groups = torch.cdist(tasks.optimum, mixture.centres).argmin(1)
    right = nearest.indices[groups] == several.chosen(tasks, 1.0)
    assert right.float().mean() > 0.98
    torch.testing.assert_close(several.starts(tasks, 1.0)[right], several.points[nearest.indices[groups]][right])


def test_tsa_maml_with_one_group_is_maml_from_the_mean_of_the_estimated_optima() -> None:
    mixture, training = mixture_of(Linear()), MetaTraining(shots=10, rate=1.0)
    one = maml(mixture, training, generator())
    same = tsa_maml(mixture, training, start=one, generator=generator(1), groups=1)
    assert (same.points - one.points).norm() < 0.3
    assert not same.chosen(mixture.sample(5, generator(), shots=10), 1.0).any()


def test_estimated_optima_are_twenty_steps_from_the_origin() -> None:
    tasks, origin = mixture_of(Linear()).sample(3, generator(), shots=10), vectors(1, 5, 1.0)[0]
    expected = tasks.adapted(origin.repeat(3, 1), rate=0.5, steps=20)[-1]
    assert torch.equal(estimated_optima(tasks, origin, 0.5), expected)
    points = torch.stack([expected[2], expected[0], expected[1]])
    assert Initializations(points, origin).chosen(tasks, 0.5).tolist() == [1, 2, 0]
