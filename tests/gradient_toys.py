"""A smooth network that fits on a screen, its formula on plain tensors, and tasks in float64, with their features."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones import Backbone, batch_of_tasks
from kshot.backbones.normalization import BatchNorm2d
from kshot.data.episodes import Episodes
from kshot.learners import MAML, InitializationLearner

WAYS = 3
Weights = dict[str, Tensor]


class SmoothNet(Backbone):
    """Two convolutions, each with BatchNorm and softplus: no kinks, which finite differences could not bear."""

    threads_at_once = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(1, 2, 3, padding=1, bias=False), BatchNorm2d(2)
        self.second, self.second_norm = nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False), BatchNorm2d(3)
        self.feature_size = 3

    def forward(self, images: Tensor) -> Tensor:
        maps = F.softplus(self.first_norm(self.first(images)))
        return F.softplus(self.second_norm(self.second(maps))).mean((2, 3))


def features(weights: Weights, images: Tensor) -> Tensor:
    """What `SmoothNet` computes, from torch.nn.functional alone."""
    maps = F.conv2d(images, weights["network.backbone.first.weight"], padding=1)
    maps = F.softplus(_batch_norm(maps, weights, "first_norm"))
    maps = F.conv2d(maps, weights["network.backbone.second.weight"], stride=2, padding=1)
    return F.softplus(_batch_norm(maps, weights, "second_norm")).mean((2, 3))


def _batch_norm(maps: Tensor, weights: Weights, layer: str) -> Tensor:
    scale, shift = (weights[f"network.backbone.{layer}.{part}"] for part in ("weight", "bias"))
    return F.batch_norm(maps, None, None, scale, shift, training=True)


def scores(weights: Weights, images: Tensor) -> Tensor:
    """What the network with its head computes."""
    return F.linear(features(weights, images), weights["network.head.weight"], weights["network.head.bias"])


def loss(weights: Weights, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of one task's images."""
    return F.cross_entropy(scores(weights, images), labels)


def smooth(cls: type[InitializationLearner], **options: object) -> InitializationLearner:
    """A learner around `SmoothNet`, in training mode, with no parameter at a value such as 0 or 1."""
    torch.manual_seed(0)
    if "ways" in inspect.signature(cls).parameters:  # of UnicornMAML the task says the number
        options["ways"] = WAYS
    learner = cls(SmoothNet(), **options).double().train()
    with torch.no_grad():
        for parameter in learner.network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return learner


def features_of(network: nn.Module, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Support and query features (B, S, D), (B, T, D) in training mode."""
    images = episodes.images()
    with batch_of_tasks(episodes.tasks, episodes.keys):
        features = network(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    boundary = episodes.support.shape[1]
    return features[:, :boundary], features[:, boundary:]


def weights_of(learner: nn.Module) -> Weights:
    """Copies of all parameters, to be differentiated by."""
    return {name: parameter.detach().clone().requires_grad_() for name, parameter in learner.named_parameters()}


def draw_tasks(count: int = 3, shots: int = 2, queries: int = 2, seed: int = 0) -> Episodes:
    """Tasks of random images whose classes differ in a pattern."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(count, WAYS, 1, 6, 6, generator=generator, dtype=torch.float64)
    labels = [torch.arange(WAYS).repeat_interleave(number).expand(count, -1) for number in (shots, queries)]
    images = [
        patterns[torch.arange(count)[:, None], which]
        + torch.randn(count, which.shape[1], 1, 6, 6, generator=generator, dtype=torch.float64)
        for which in labels
    ]
    keys = np.arange(count, dtype=np.uint64) + np.uint64(7)
    return Episodes(images[0], labels[0], images[1], labels[1], torch.arange(WAYS).expand(count, -1), keys)


def mean_over_tasks(objective: Callable[[int], Tensor], episodes: Episodes) -> Tensor:
    """The mean of a function of the number of the task."""
    return torch.stack([objective(task) for task in range(episodes.tasks)]).mean(0)


def check_gradients(learner: nn.Module, expected: dict[str, Tensor], rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """``.grad`` of every parameter is the one expected under its name, and none of them is zero altogether."""
    for name, parameter in learner.named_parameters():
        assert expected[name].any(), name
        torch.testing.assert_close(
            parameter.grad, expected[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )


def check_equals_loss(
    learner: InitializationLearner, loss_of: Callable[[InitializationLearner, Weights, Episodes], Tensor]
) -> None:
    """Loss and gradients of a learner are those of a loss that is written out on plain tensors."""
    episodes, weights = draw_tasks(), weights_of(learner)
    expected = loss_of(learner, weights, episodes)
    gradients = torch.autograd.grad(expected, list(weights.values()))
    measured = learner.accumulate_gradients(episodes)
    torch.testing.assert_close(measured["loss"], expected.detach())
    check_gradients(learner, dict(zip(weights, gradients)))


def check_finite_differences(
    learner: InitializationLearner, objective: Callable[[], Tensor], step: float = 1e-5, rtol: float = 1e-6
) -> None:
    """``.grad`` gives the slope of the objective along a random direction in every single parameter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in learner.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * step * direction
            values.append(objective().item())
            with torch.no_grad():
                parameter -= sign * step * direction
        slope = (parameter.grad * direction).sum().item()
        measured = (values[0] - values[1]) / (2 * step)
        assert abs(slope - measured) <= rtol * abs(measured) + 1e-9, f"{name}: {slope} is not {measured}"


def check_equals_maml(learner: InitializationLearner, maml: MAML, rtol: float = 1e-9) -> None:
    """The same gradients of the network, and the same scores under either kind of statistics."""
    maml.network.load_state_dict(learner.network.state_dict(), strict=False)
    episodes = draw_tasks()
    learner.accumulate_gradients(episodes)
    maml.accumulate_gradients(episodes)
    gradients = {name: parameter.grad for name, parameter in maml.network.named_parameters()}
    check_gradients(learner.network, gradients, rtol=rtol)
    for each in (learner, maml):
        each.eval()
    for statistics in learner.statistics_offered:
        learner.statistics_at_test = maml.statistics_at_test = statistics
        torch.testing.assert_close(learner.scores(episodes), maml.scores(episodes), rtol=rtol, atol=1e-12)
