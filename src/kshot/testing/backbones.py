"""The contract of backbones: `check_backbone` runs it on any class or function that makes one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from kshot.backbones import Backbone, batch_of_tasks
from kshot.backbones.dropout import DropBlock, Dropout
from kshot.backbones.independence import check_independence
from kshot.backbones.task_weights import forward_per_task, shared_weights
from kshot.errors import ConfigError

_TASKS, _IMAGES = 2, 4  # per task
# of finite differences, relative to the length of the weights. The gradient jumps where a ReLU changes its side, and a
# network of five million units has a few that do so even within the first step, but none within the last.
_STEPS = (1e-8, 1e-9, 1e-10)


def check_backbone(make: Callable[..., Backbone], *, image_size: int = 16, **options: Any) -> None:
    """Check that a backbone keeps the promises that every learner builds on.

    The checks: features are finite vectors (M, feature_size) for images of one and of three channels and of two sizes;
    evaluation is deterministic, and the feature of an image depends on no other image; in training, one pass over
    several tasks gives the features and gradients of a pass per task; with weights of its own, each task gets what it
    gets alone; derivatives of a gradient step are those of finite differences; weights can be saved and loaded;
    ``repr`` fits on one line.

    Parameters
    ----------
    make
        A class, or a function that takes `in_channels` and `image_size` by keyword and returns a `Backbone`.
    image_size
        Side of the images in pixels.
    options
        Further arguments of `make`. Small networks make quick checks.

    Raises
    ------
    AssertionError
        As for `check_learner`: which promise is broken.

    Examples
    --------
    >>> check_backbone(kshot.Conv4, width=8)
    >>> check_backbone(lambda **sizes: kshot.backbone(MyNetwork(), **sizes))
    """

    def build(in_channels: int = 3, size: int = image_size) -> Backbone:
        torch.manual_seed(0)
        return make(in_channels=in_channels, image_size=size, **options).double()

    _check_shapes(build, image_size)
    network, images = build(), _images(3, image_size)
    _check_evaluation(network, images)
    _check_state(build, images)
    with _without_foreign_dropout(network):
        _check_tasks_in_one_pass(network, images)
        _check_weights_of_tasks(network, images)
        _check_second_order(network, images)


def _images(channels: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(_TASKS * _IMAGES, channels, size, size, generator=generator, dtype=torch.float64)


def _check_shapes(build: Callable[..., Backbone], image_size: int) -> None:
    for channels, size in ((1, image_size), (3, image_size), (3, 2 * image_size)):
        network, images = build(channels, size), _images(channels, size)[:3]
        assert isinstance(network, Backbone), f"{type(network).__name__} is no kshot.backbones.Backbone"
        with torch.no_grad():
            features = network(images)
        expected = (len(images), network.feature_size)
        assert features.shape == expected, f"features are {tuple(features.shape)}, but feature_size says {expected}"
        assert features.dtype == images.dtype, f"features of {images.dtype} images are {features.dtype}"
        assert features.isfinite().all(), "features of random images are not finite"
        assert network.input_shape in (None, (channels, size, size)), f"input_shape is {network.input_shape}"
        text = repr(network)
        assert "\n" not in text, "repr of a backbone is one line: name, options, input, features, parameters"
        assert f"{network.feature_size:,} features" in text, f"repr does not say the number of features: {text}"


@torch.no_grad()
def _check_evaluation(network: Backbone, images: Tensor) -> None:
    try:
        check_independence(network, images, type(network).__name__)
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    network.eval()
    features = network(images)
    assert torch.equal(network(images), features), "a second pass in evaluation mode gives other features"
    with batch_of_tasks(_TASKS, np.arange(_TASKS, dtype=np.uint64)):
        assert torch.equal(network(images), features), (
            "in evaluation mode the features depend on the tasks of the batch"
        )
    network.train()


@torch.no_grad()
def _check_state(build: Callable[..., Backbone], images: Tensor) -> None:
    network, other = build(), build()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    network.train()(images)  # so that buffers have left their initial values
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.eval()(images), network.eval()(images)), "state_dict does not hold all that features need"


def _check_tasks_in_one_pass(network: Backbone, images: Tensor) -> None:
    keys = np.arange(_TASKS, dtype=np.uint64)
    together, apart = copy.deepcopy(network).train(), copy.deepcopy(network).train()
    with batch_of_tasks(_TASKS, keys, total=_TASKS):
        features = together(images)
    _objective(features).backward()
    start = copy.deepcopy(apart.state_dict())
    for task, part in enumerate(images.split(_IMAGES)):
        apart.load_state_dict(start)
        with batch_of_tasks(1, keys[task : task + 1], total=_TASKS):
            alone = apart(part)
        _assert_close(
            features[task * _IMAGES :][:_IMAGES], alone, "training features differ from those of a pass per task"
        )
        _objective(alone).backward()
    for (name, ours), theirs in zip(together.named_parameters(), apart.parameters()):
        _assert_close(ours.grad, theirs.grad, f"the gradient of {name} differs from that of a pass per task")


def _check_weights_of_tasks(network: Backbone, images: Tensor) -> None:
    network.eval()
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: (weight * (1 + 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))).detach()
        for name, weight in shared_weights(network, _TASKS).items()
    }
    inputs = images.unflatten(0, (_TASKS, _IMAGES))
    alone = [
        forward_per_task(network, {name: weight[i : i + 1] for name, weight in weights.items()}, inputs[i : i + 1])
        for i in range(_TASKS)
    ]
    together = forward_per_task(network, weights, inputs)
    _assert_close(together, torch.cat(alone), "features under weights of its own differ from those of the task alone")


def _check_second_order(network: Backbone, images: Tensor) -> None:
    """The derivative through a gradient step, along the direction of the weights, against central differences."""
    network.eval()
    support, query = images.split(_IMAGES)
    start = {name: weight.detach() for name, weight in network.named_parameters()}

    def loss_after_step(weights: dict[str, Tensor]) -> Tensor:
        stacked = {name: weight.unsqueeze(0) for name, weight in weights.items()}
        loss = _objective(forward_per_task(network, stacked, support.unsqueeze(0))) / len(support)
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
        moved = {
            name: weight.unsqueeze(0) if gradient is None else (weight - 0.01 * gradient).unsqueeze(0)
            for (name, weight), gradient in zip(weights.items(), gradients)
        }
        return _objective(forward_per_task(network, moved, query.unsqueeze(0))) / len(query)

    generator = torch.Generator().manual_seed(3)
    way = {
        name: torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * weight.norm() / weight.numel() ** 0.5
        for name, weight in start.items()
    }
    leaves = {name: weight.clone().requires_grad_() for name, weight in start.items()}
    gradients = torch.autograd.grad(loss_after_step(leaves), list(leaves.values()), allow_unused=True)
    derivative = sum(
        float((gradient * way[name]).sum()) for name, gradient in zip(leaves, gradients) if gradient is not None
    )
    differences = []
    for step in _STEPS:
        ends = [
            loss_after_step({name: (start[name] + sign * step * way[name]).requires_grad_() for name in start}).item()
            for sign in (1, -1)
        ]
        differences.append((ends[0] - ends[1]) / (2 * step))
        if math.isclose(derivative, differences[-1], rel_tol=1e-3, abs_tol=1e-6):
            return
    raise AssertionError(
        f"the derivative through a gradient step is {derivative}, but finite differences give "
        f"{', '.join(map(str, differences))} with smaller and smaller steps: derivatives of the second order are wrong"
    )


def _objective(features: Tensor) -> Tensor:
    """A smooth scalar, with a different derivative in every feature."""
    return (features * torch.linspace(0.5, 1.5, features.shape[-1], dtype=features.dtype)).sin().sum()


@contextmanager
def _without_foreign_dropout(network: nn.Module) -> Iterator[None]:
    """Switch dropout off that does not draw from the keys of tasks: its masks belong to a pass, and not to a task."""
    foreign = [layer for layer in network.modules() if isinstance(layer, _DropoutNd)]
    rates = [layer.p for layer in foreign]
    for layer in foreign:
        layer.p = 0.0
    assert not any(isinstance(layer, Dropout | DropBlock) for layer in foreign)
    try:
        yield
    finally:
        for layer, rate in zip(foreign, rates):
            layer.p = rate


def _assert_close(actual: Tensor | None, expected: Tensor | None, message: str) -> None:
    if actual is None or expected is None:
        assert actual is expected, message
        return
    bound = 1e-8 * float(expected.detach().abs().max()) + 1e-10
    difference = float((actual - expected).detach().abs().max())
    assert difference <= bound, f"{message}, by up to {difference:.2g}"
