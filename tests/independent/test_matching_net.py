"""Matching networks (Vinyals et al. 2016): attention over support labels, without and with full-context embeddings.

Classes have unequal numbers of images here, so that the division by the size of a class, which eq. 1 lacks, shows.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plain import WAYS, Weights, build, check_training, close, draw_tasks, features, weights_of
from torch import Tensor

from kshot.data.episodes import Episodes
from kshot.learners import MatchingNet

SIZES = [3, 2, 1]  # images of each class


def unequal_tasks() -> Episodes:
    tasks = draw_tasks(shots=3)
    places, counts = [], [0] * WAYS
    for place, label in enumerate(tasks.support_labels[0].tolist()):
        counts[label] += 1
        if counts[label] <= SIZES[label]:
            places.append(place)
    return replace(tasks, support=tasks.support[:, places], support_labels=tasks.support_labels[:, places])


def probabilities(support: Tensor, labels: Tensor, query: Tensor, scale: Tensor | float = 1) -> Tensor:
    """(N,) of one query (D,): eq. 1, with weights divided by the size of their class, and the cosines times `scale`."""
    weights = [(scale * (query @ image) / (query.norm() * image.norm())).exp() for image in support]
    of_class = [sum(w / SIZES[way] for w, label in zip(weights, labels) if label == way) for way in range(WAYS)]
    return torch.stack(of_class) / sum(of_class)


def lstm(inputs: Tensor, state: Tensor, cell: Tensor, weights: Weights, name: str, end: str) -> tuple[Tensor, Tensor]:
    """One step for one sequence: input, forget, candidate and output gate."""
    of_input, of_state = (weights[f"{name}.{kind}{end}"] for kind in ("weight_ih", "weight_hh"))
    bias = weights[f"{name}.bias_ih{end}"] + weights[f"{name}.bias_hh{end}"]
    gates = (of_input @ inputs + of_state @ state + bias).chunk(4)
    cell = gates[1].sigmoid() * cell + gates[0].sigmoid() * gates[2].tanh()
    return gates[3].sigmoid() * cell.tanh(), cell


def support_in_context(weights: Weights, support: Tensor) -> Tensor:
    """g(x_i, S) = forward state + backward state + g'(x_i) of one task's support features (S, D)."""
    embedded = list(support)
    for end, order in (("_l0", range(len(support))), ("_l0_reverse", reversed(range(len(support))))):
        state = cell = torch.zeros_like(support[0])
        for place in order:
            state, cell = lstm(support[place], state, cell, weights, "adaptation.context.of_support", end)
            embedded[place] = embedded[place] + state
    return torch.stack(embedded)


def query_in_context(weights: Weights, support: Tensor, query: Tensor, steps: int) -> Tensor:
    """f(x, S) (D,) of one query: attention, readout and an LSTM that adds f'(x), some times over (eqs. 3-6)."""
    state = cell = torch.zeros_like(query)
    for _ in range(steps):
        attention = torch.stack([state @ image for image in support]).softmax(0)
        readout = (attention[:, None] * support).sum(0)
        inputs = torch.cat([query, readout])
        hidden, cell = lstm(inputs, state, cell, weights, "adaptation.context.of_query", "")
        state = hidden + query
    return state


def task_probabilities(weights: Weights, tasks: Episodes, task: int, steps: int, maps: tuple[Tensor, Tensor]) -> Tensor:
    """(T, N) of one task's query features; `steps` of reading, 0 for no context."""
    support, query = maps
    asked = list(query)
    if steps:
        support = support_in_context(weights, support)
        asked = [query_in_context(weights, support, image, steps) for image in query]
    labels, scale = tasks.support_labels[task].tolist(), weights.get("adaptation.scale", 1)
    return torch.stack([probabilities(support, labels, image, scale) for image in asked])


def learner_that_reads(steps: int, scale: float | None = None) -> MatchingNet:
    return build(MatchingNet, full_context=steps > 0, scale=scale, **({"reading_steps": steps} if steps else {}))


@pytest.mark.parametrize(("steps", "scale"), [(0, None), (0, 4.0), (1, None), (3, None)])
def test_training_minimises_the_negative_logarithm_of_the_probability(steps: int, scale: float | None) -> None:
    learner, tasks = learner_that_reads(steps, scale), unequal_tasks()
    boundary = tasks.support.shape[1]

    def objective(weights: Weights, task: int) -> Tensor:
        maps = features(weights, torch.cat([tasks.support[task], tasks.query[task]]))
        found = task_probabilities(weights, tasks, task, steps, (maps[:boundary], maps[boundary:]))
        return -found[range(len(found)), tasks.query_labels[task]].log().mean()

    # a single reading starts from a state of zero
    idle = ("adaptation.context.of_query.weight_hh",) if steps == 1 else ()
    check_training(learner, tasks, objective, without_effect=idle)


@torch.no_grad()
@pytest.mark.parametrize(("steps", "scale"), [(0, None), (0, 100.0), (3, None)])
def test_a_test_image_gets_these_probabilities(steps: int, scale: float | None) -> None:
    learner, tasks = learner_that_reads(steps, scale).eval(), unequal_tasks()
    weights = weights_of(learner)
    for task, actual in enumerate(learner.scores(tasks)):
        support, query = (features(weights, part[task], running=True) for part in (tasks.support, tasks.query))
        close(actual.softmax(1), task_probabilities(weights, tasks, task, steps, (support, query)), f"task {task}")
