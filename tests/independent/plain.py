"""What the files of this folder hold learners against: one small network, written out, and tasks in float64.

Nothing of kshot stands behind an expected value here, so that a fault of kshot cannot be on both sides of a comparison.
Each file holds one learner's training loss, its gradient in every parameter and the scores of test images against the
paper's formulas, in plain loops over tasks and steps. kshot provides the class under test and the container of tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kshot
from kshot.data.episodes import Episodes
from kshot.learners import Learner

WAYS, SHOTS, QUERIES, CLASSES, SIDE, FEATURES = 3, 2, 2, 7, 8, 12
Weights = dict[str, Tensor]
Adapted = Callable[[Weights, Tensor, Tensor], Weights]  # of all tasks; support images and labels of one -> its weights
BODY = "backbone.module."  # of a learner whose backbone is frozen while a task is learnt
NETWORK = "network.backbone.module."  # of a learner that adapts weights, next to "network.head."


def build(cls: type[Learner], **options: Any) -> Learner:
    """A learner in float64 and training mode, with no parameter and no statistic at a value such as 0 or 1."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 2), (2, 3)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.Softplus()]  # which has no kink, unlike ReLU
    backbone = kshot.backbone(nn.Sequential(*layers, nn.Flatten()), in_channels=1, image_size=SIDE)
    learner = cls(backbone, **options).double().train()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in learner.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand_like(buffer)
    return learner


def features(weights: Weights, images: Tensor, body: str = BODY, film: Any = None, running: bool = False) -> Tensor:
    """Features (M, 12) of one task's images (M, 1, 8, 8): twice convolution, BatchNorm, softplus; then flattened.

    Parameters
    ----------
    weights
        By the names that the learner has for them, those of the network beginning with `body`.
    film
        Scale and shift (channels,) of each layer's normalised maps, or None.
    running
        Normalise by the running statistics instead of those of the images.
    """
    maps = images
    for place, layer in enumerate((0, 3)):
        maps = F.conv2d(maps, weights[f"{body}{layer}.weight"], stride=2, padding=1)
        norm = f"{body}{layer + 1}."
        mean = weights[f"{norm}running_mean"] if running else maps.mean((0, 2, 3))
        variance = weights[f"{norm}running_var"] if running else maps.var((0, 2, 3), correction=0)
        maps = (maps - channels(mean)) / channels(variance + 1e-5).sqrt()
        maps = maps * channels(weights[f"{norm}weight"]) + channels(weights[f"{norm}bias"])
        if film is not None:
            maps = channels(film[place][0]) * maps + channels(film[place][1])
        maps = F.softplus(maps)
    return maps.flatten(1)


def channels(values: Tensor) -> Tensor:
    """Values (C,) as they apply to maps (M, C, H, W)."""
    return values.view(1, -1, 1, 1)


def scores(weights: Weights, images: Tensor, film: Any = None) -> Tensor:
    """Scores (M, 3) of one task's images by a network with a linear head."""
    return features(weights, images, NETWORK, film) @ weights["network.head.weight"].T + weights["network.head.bias"]


def loss(weights: Weights, images: Tensor, labels: Tensor, film: Any = None) -> Tensor:
    """Mean cross-entropy of one task's images by a network with a linear head."""
    return F.cross_entropy(scores(weights, images, film), labels)


def squared_distance(weights: Weights, others: Weights) -> Tensor:
    """|weights - others|^2."""
    return torch.stack([(weights[name] - others[name]).square().sum() for name in weights]).sum()


def draw_tasks(count: int = 3, shots: int = SHOTS, queries: int = QUERIES, seed: int = 0) -> Episodes:
    """Tasks of three of seven classes, whose images are a pattern of the class and noise; labels are in no order."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(CLASSES, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    classes = torch.stack([torch.randperm(CLASSES, generator=generator)[:WAYS] for _ in range(count)])

    def draw(each: int) -> tuple[Tensor, Tensor]:
        order = torch.randperm(WAYS * each, generator=generator)
        labels = torch.arange(WAYS).repeat(each)[order].expand(count, -1)
        noise = torch.randn(*labels.shape, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
        return patterns[classes.gather(1, labels)] + noise, labels

    support, query = draw(shots), draw(queries)
    return Episodes(*support, *query, classes, np.arange(count, dtype=np.uint64) + np.uint64(7))


def weights_of(learner: nn.Module) -> Weights:
    """Copies of all parameters, to be differentiated by, and of the running statistics."""
    learnt = {name: value.requires_grad for name, value in learner.named_parameters()}
    values = {name: value.detach().clone() for name, value in learner.state_dict().items()}
    return {name: value.requires_grad_(learnt.get(name, False)) for name, value in values.items()}


def part(weights: Weights, beginning: str) -> Weights:
    """The weights whose names begin so and that learn."""
    return {name: value for name, value in weights.items() if name.startswith(beginning) and value.requires_grad}


def mean_over_tasks(objective: Callable[[int], Tensor], episodes: Episodes) -> Tensor:
    """The mean of a function of the number of the task."""
    return torch.stack([objective(task) for task in range(episodes.tasks)]).mean(0)


def query_loss(episodes: Episodes, adapted: Adapted) -> Callable[[Weights, int], Tensor]:
    """What learners that adapt weights minimise: the loss of a task's query images under the weights of the task."""

    def objective(weights: Weights, task: int) -> Tensor:
        of_task = adapted(weights, episodes.support[task], episodes.support_labels[task])
        return loss(of_task, episodes.query[task], episodes.query_labels[task])

    return objective


def scores_after(learner: Learner, episodes: Episodes, adapted: Adapted) -> Callable[[int, Tensor], Tensor]:
    """The scores of a task's images under the weights of the task."""
    weights = weights_of(learner)
    return lambda task, images: scores(adapted(weights, episodes.support[task], episodes.support_labels[task]), images)


def check_training(
    learner: Learner,
    episodes: Episodes,
    objective: Callable[[Weights, int], Tensor],
    *,
    penalty: Callable[[Weights], Tensor] | None = None,
    without_effect: tuple[str, ...] = (),
    rtol: float = 1e-9,
) -> None:
    """The training loss is the mean of `objective` (weights, task) plus the penalty, and so is its gradient.

    Every parameter must have a gradient, of which not all is zero, except for those `without_effect`.
    """
    weights = weights_of(learner)
    expected = mean_over_tasks(lambda task: objective(weights, task), episodes)
    if penalty is not None:
        expected = expected + penalty(weights)
    learnt = {name: value for name, value in weights.items() if value.requires_grad}
    gradients = torch.autograd.grad(expected, list(learnt.values()))
    check_step(learner, episodes, expected, dict(zip(learnt, gradients)), without_effect=without_effect, rtol=rtol)


def check_step(
    learner: Learner,
    episodes: Episodes,
    expected: Tensor,
    gradients: Weights,
    *,
    without_effect: tuple[str, ...] = (),
    rtol: float = 1e-9,
) -> None:
    """A training step reports this loss and leaves these gradients; `meta_loss` is the same number."""
    torch.testing.assert_close(learner.meta_loss(episodes).detach(), expected.detach(), rtol=rtol, atol=1e-12)
    learner.zero_grad()
    measured = learner.accumulate_gradients(episodes)
    torch.testing.assert_close(measured["loss"], expected.detach(), rtol=rtol, atol=1e-12)
    for name, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        assert name in without_effect or gradients[name].abs().max() > 1e-9, f"{name} takes no part in the comparison"
        close(parameter.grad, gradients[name], name, rtol=rtol)


def check_scores(
    learner: Learner, episodes: Episodes, outputs: Callable[[int, Tensor], Tensor], rtol: float = 1e-9
) -> None:
    """Test scores of a learner that adapts weights are `outputs` (task, images) of its query images.

    BatchNorm takes the statistics of all query images, or of the support set and one query image at a time.
    """
    learner.eval()
    learner.statistics_at_test = "transductive"
    for task, actual in enumerate(learner.scores(episodes)):
        close(actual, outputs(task, episodes.query[task]), f"task {task}", rtol=rtol)
    learner.statistics_at_test = "inductive"
    for task, actual in enumerate(learner.scores(episodes)):
        for place, image in enumerate(episodes.query[task]):
            images = torch.cat([episodes.support[task], image[None]])
            close(actual[place], outputs(task, images)[-1], f"image {place} of task {task}", rtol=rtol)


def close(actual: Tensor | None, expected: Tensor, name: str, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    """Equal to so many digits; `name` is for the message."""
    assert actual is not None, f"{name} has no value"
    torch.testing.assert_close(
        actual.detach(), expected.detach(), rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}"
    )
