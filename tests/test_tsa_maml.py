"""TSA-MAML: which initialisation serves a task, which weights learn from it, and by what gradient."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kshot.backbones import BatchNorm2d
from kshot.backbones.registry import Backbone
from kshot.data.episodes import Episodes
from kshot.errors import ConfigError
from kshot.learners import MAML, TSAMAML, UnicornMAML, learners

WAYS, SHOTS, QUERIES, SIDE = 3, 2, 4, 5
OPTIONS = {"ways": WAYS, "groups": 3, "assignment_steps": 4, "inner_rate": 0.2, "inner_steps": 2}


class SmoothBackbone(Backbone):
    """A convolution, BatchNorm and tanh: nothing has a kink, so that finite differences mean something."""

    feature_size = 2 * 9

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(1, 2, 3)
        self.normalise = BatchNorm2d(2)

    def forward(self, images):
        return torch.tanh(self.normalise(self.convolve(images))).flatten(1)


def build(cls=TSAMAML, **options):
    """A learner in float64 whose groups, if it has some, lie where the estimated optima of a few tasks are."""
    torch.manual_seed(0)
    options = OPTIONS | options
    if cls is MAML:
        options = {name: options[name] for name in ("ways", "inner_rate", "inner_steps")}
    learner = cls(SmoothBackbone(), **options).double()
    if cls is TSAMAML and learner.groups > 1:
        learner.start_groups(learner.task_vectors(tasks(learner.groups, seed=1)))
    return learner


def tasks(count: int, seed: int = 0) -> Episodes:
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(count, WAYS, 1, SIDE, SIDE, generator=generator).double()

    def images(each: int) -> torch.Tensor:
        repeated = prototypes.repeat_interleave(each, 1)
        return repeated + 0.5 * torch.randn(repeated.shape, generator=generator).double()

    support, query = (torch.arange(WAYS).repeat_interleave(each).expand(count, -1) for each in (SHOTS, QUERIES))
    classes = torch.arange(WAYS).expand(count, -1)
    return Episodes(images(SHOTS), support, images(QUERIES), query, classes, np.zeros(count, np.uint64))


def test_with_one_group_it_is_maml_step_for_step():
    pair = [build(cls, groups=1, first_order=False) for cls in (MAML, TSAMAML)]
    losses: list[list[torch.Tensor]] = [[], []]
    for learner, seen in zip(pair, losses):
        optimizer = torch.optim.Adam([each for each in learner.parameters() if each.requires_grad], 0.01)
        for step in range(4):
            optimizer.zero_grad()
            seen.append(learner.accumulate_gradients(tasks(3, seed=step))["loss"])
            optimizer.step()
    assert losses[0] == losses[1]
    expected, actual = pair[0].network.state_dict(), pair[1].initializations[0].state_dict()
    torch.testing.assert_close(dict(actual), dict(expected), rtol=0, atol=0)
    unseen = tasks(3, seed=9)
    torch.testing.assert_close(pair[1].eval().scores(unseen), pair[0].eval().scores(unseen), rtol=0, atol=0)


def test_with_offsets_of_zero_it_is_maml():
    """Loss, scores and the gradient of the common part, whichever group a task is assigned to."""
    learner, maml = build(sharing="offset"), build(MAML)
    learner.load_pretrained(maml.state_dict())
    anchors = learner.task_vectors(tasks(3, seed=1))
    learner.assignment = "initial"
    learner.centroids.data.copy_(anchors)
    batch = tasks(6)
    assert len(set(learner.assigned(batch).tolist())) > 1
    losses = [each.accumulate_gradients(batch)["loss"] for each in (learner, maml)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    common = dict(learner.initializations.common.named_parameters())
    for name, expected in maml.network.named_parameters():
        torch.testing.assert_close(common[name].grad, expected.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(learner.eval().scores(batch), maml.eval().scores(batch), rtol=1e-12, atol=1e-12)


def test_offsets_start_around_the_mean_of_the_groups():
    learner = build(groups=3, sharing="offset", offset_scale=0.5, cluster_norms=False)
    centroids = torch.randn(3, learner.vector_size, dtype=torch.float64)
    learner.start_groups(centroids)
    torch.testing.assert_close(learner.group_vectors(), centroids)

    def vector(part):
        weights = dict(part.named_parameters())
        return torch.cat([weights[name].flatten() for name in learner.clustered])

    offsets = torch.stack([vector(part) for part in learner.initializations.offsets])
    moved = vector(learner.initializations.common) - vector(learner.network)
    torch.testing.assert_close(moved, centroids.mean(0))
    torch.testing.assert_close(offsets.sum(0), torch.zeros_like(moved))


def test_a_lost_group_keeps_its_offset_while_the_common_part_learns():
    learner = build(groups=2, sharing="offset", assignment="initial")
    far = torch.stack([torch.zeros(learner.vector_size), torch.full((learner.vector_size,), 100.0)]).double()
    learner.start_groups(far)
    learner.accumulate_gradients(tasks(4))
    assert learner.usage.tolist() == [4, 0]
    assert all(parameter.grad is None for parameter in learner.initializations.offsets[1].parameters())
    assert all(parameter.grad is not None for parameter in learner.initializations.common.parameters())


def test_the_head_of_unicorn_maml_becomes_that_of_every_class():
    learner = build()
    torch.manual_seed(1)
    unicorn = UnicornMAML(SmoothBackbone()).double()
    learner.load_pretrained(unicorn.state_dict())
    torch.testing.assert_close(learner.network.head.weight, unicorn.network.head.weight.expand(WAYS, -1))


def test_gradients_are_those_of_finite_differences():
    learner, batch = build(), tasks(6)
    learner.accumulate_gradients(batch)
    torch.manual_seed(1)
    for group in set(learner.assigned(batch).tolist()):
        weights = list(learner.initializations[group].parameters())
        direction = [torch.randn_like(weight) for weight in weights]
        expected = sum((weight.grad * along).sum() for weight, along in zip(weights, direction))
        losses = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for weight, along in zip(weights, direction):
                    weight += step * along
            losses.append(learner.meta_loss(batch))
        with torch.no_grad():
            for weight, along in zip(weights, direction):
                weight += 1e-5 * along
        torch.testing.assert_close((losses[0] - losses[1]) / 2e-5, expected, rtol=1e-6, atol=1e-9)


def test_a_group_without_a_task_keeps_weights_and_moments():
    learner = build()
    optimizer = torch.optim.Adam([each for each in learner.parameters() if each.requires_grad], 0.01)
    every = tasks(40)
    groups = learner.assigned(every)
    assert set(groups.tolist()) == {0, 1, 2}
    for group in (0, 1):
        place = int((groups == group).nonzero()[0])
        before = copy.deepcopy(optimizer.state_dict()["state"]), copy.deepcopy(learner.initializations.state_dict())
        optimizer.zero_grad()
        learner.accumulate_gradients(every.part(place, place + 1))
        optimizer.step()
        for other in {0, 1, 2} - {group}:
            unchanged = learner.initializations[other].state_dict()
            expected = {name: before[1][f"{other}.{name}"] for name in unchanged}
            torch.testing.assert_close(dict(unchanged), expected, rtol=0, atol=0)
    moments = optimizer.state_dict()["state"]
    size = len(list(learner.network.parameters()))
    assert sorted(moments) == list(range(2 * size)), "the third group has no moments yet"
    assert all(moments[place]["step"] == 1 for place in moments)
    assert all(torch.equal(before[0][place]["exp_avg"], moments[place]["exp_avg"]) for place in range(size))


def test_the_two_rules_differ_once_the_initialisations_have_moved():
    pair = {rule: build(assignment=rule) for rule in ("current", "initial")}
    batch = tasks(12)
    before = pair["current"].assigned(batch)
    torch.testing.assert_close(pair["initial"].assigned(batch), before)
    emptied = int(before[0])
    for learner in pair.values():
        with torch.no_grad():
            for weight in learner.initializations[emptied].parameters():
                weight += 100
    assert emptied not in pair["current"].assigned(batch)
    torch.testing.assert_close(pair["initial"].assigned(batch), before)


def test_batch_norm_counts_among_the_weights_only_where_it_is_asked_to():
    with_norms, without = build(), build(cluster_norms=False)
    assert with_norms.vector_size == sum(weight.numel() for weight in with_norms.network.parameters())
    assert without.vector_size == with_norms.vector_size - 4
    batch = tasks(12)
    before = without.assigned(batch)
    for learner in (with_norms, without):
        with torch.no_grad():
            learner.initializations[int(before[0])].backbone.normalise.weight += 100
    assert int(before[0]) not in with_norms.assigned(batch)
    torch.testing.assert_close(without.assigned(batch), before)


def test_groups_start_at_theta_star_plus_their_centroids():
    learner = build(groups=2, cluster_norms=False)
    centroids = torch.randn(2, learner.vector_size, dtype=torch.float64)
    learner.start_groups(centroids)
    torch.testing.assert_close(learner.group_vectors(), centroids)
    for group in learner.initializations:
        torch.testing.assert_close(group.backbone.normalise.weight, learner.network.backbone.normalise.weight)
    learner.start_groups(centroids)
    torch.testing.assert_close(learner.group_vectors(), centroids, msg="a second start adds nothing to the first")


def test_pretrained_weights_become_theta_star_and_every_start():
    learner = build(learn_rates=True)
    maml = learner.pretraining_learner().double()
    torch.testing.assert_close(dict(maml.network.state_dict()), dict(learner.network.state_dict()))
    with torch.no_grad():
        for parameter in maml.parameters():
            parameter += 1
    untouched = learner.network.head.weight.clone()
    assert not torch.equal(maml.network.head.weight, untouched)
    learner.load_pretrained(maml.state_dict())
    assert not learner.group_vectors().any()
    torch.testing.assert_close(dict(learner.network.state_dict()), dict(maml.network.state_dict()))
    torch.testing.assert_close(learner.rates.state_dict(), maml.rates.state_dict())


def test_training_counts_the_tasks_of_each_group_and_evaluation_does_not():
    learner, batch = build(), tasks(6)
    places = learner.assigned(batch)
    for _ in range(2):
        learner.accumulate_gradients(batch)
    learner.eval().scores(batch)
    counts = torch.bincount(places, minlength=3)
    assert learner.usage.tolist() == (2 * counts).tolist()
    assert learner.unused_for.tolist() == torch.where(counts > 0, 0, 12).tolist()
    assert 12 in learner.unused_for


def test_the_vector_holds_the_weights_that_adapt():
    assert build(layers="head").clustered == ["head.weight", "head.bias"]
    body = [name for name in build().clustered if not name.startswith("head.")]
    assert build(cluster_head=False).clustered == build(symmetrize="shared-head").clustered == body


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups is 0"),
        ({"assignment_steps": 0}, "assignment_steps is 0"),
        ({"assignment": "nearest"}, "assignment is 'nearest'; choose one of: current, initial"),
        ({"symmetrize": "all"}, "symmetrize is 'all'; choose one of: none, shifts, shared-head"),
        ({"symmetrize": "shifts", "shifts": 6}, "shifts is 6, but labels of 5 ways have only 5 cyclic shifts"),
        ({"symmetrize": "shifts", "shifts": 0}, "shifts is 0"),
        ({"shifts": 3}, "shifts is 3, but symmetrize is 'none'"),
        ({"symmetrize": "shifts", "ways": 1}, "tasks of one way are regression and have no labels; leave it out"),
        ({"symmetrize": "shared-head", "layers": "head"}, "no weights are left whose distance could be taken"),
        ({"sharing": "all"}, "sharing is 'all'; choose one of: none, offset"),
        ({"sharing": "offset", "offset_scale": 0.0}, "offset_scale is 0.0"),
        ({"sharing": "offset", "offset_decay": -1.0}, "offset_decay is -1.0"),
    ],
)
def test_options_without_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TSAMAML(SmoothBackbone(), **options)


def test_it_is_registered_under_its_name():
    assert learners["tsa-maml"] is TSAMAML
