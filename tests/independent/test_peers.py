"""kshot against other people's libraries, if they are there: EasyFSL's ProtoNet and the inner loop of `higher`."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from plain import build, check_step, close, draw_tasks
from torch import Tensor, nn

from kshot.learners import MAML, ProtoNet


class OneTask(nn.Module):
    """A network that normalises by the images at hand, as a task on its own, for a library that knows no tasks."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(copy.deepcopy(parts))

    def forward(self, images: Tensor) -> Tensor:
        for part in self.parts:
            images = part(images)
        return images


@pytest.mark.slow
def test_protonet_of_easyfsl_has_the_same_distances() -> None:
    """EasyFSL scores by the negative distance, kshot and Snell et al. (2017) by the negative squared one."""
    methods = pytest.importorskip("easyfsl.methods", exc_type=ImportError)
    learner, tasks = build(ProtoNet).eval(), draw_tasks()
    peer = methods.PrototypicalNetworks(copy.deepcopy(learner.backbone)).eval()
    for task, actual in enumerate(learner.scores(tasks)):
        peer.process_support_set(tasks.support[task], tasks.support_labels[task])
        distances = -peer(tasks.query[task])
        close(actual.softmax(1), (-(distances**2)).softmax(1), f"task {task}", rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("first_order", [False, True])
def test_maml_by_higher_has_the_same_gradients(first_order: bool) -> None:
    higher = pytest.importorskip("higher")
    learner, tasks = build(MAML, ways=3, inner_rate=0.3, inner_steps=3, first_order=first_order), draw_tasks()
    network = OneTask(learner.network.backbone.module, learner.network.head).train()
    optimizer, losses = torch.optim.SGD(network.parameters(), 0.3), []
    for task in range(tasks.tasks):
        context = higher.innerloop_ctx(
            network, optimizer, copy_initial_weights=False, track_higher_grads=not first_order
        )
        with context as (adapted, inner):
            for _ in range(3):
                inner.step(F.cross_entropy(adapted(tasks.support[task]), tasks.support_labels[task]))
            losses.append(F.cross_entropy(adapted(tasks.query[task]), tasks.query_labels[task]))
            if first_order:
                gradients = torch.autograd.grad(losses[-1], list(adapted.parameters()))
                for parameter, gradient in zip(network.parameters(), gradients):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            else:
                losses[-1].backward()
    names = [name for name, _ in learner.named_parameters()]
    expected = {name: parameter.grad / tasks.tasks for name, parameter in zip(names, network.parameters())}
    check_step(learner, tasks, torch.stack(losses).mean(), expected)
