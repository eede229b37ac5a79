"""Optimisers and learning rate schedules by name, with the meaning that W21 and its release give them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from kshot.errors import ConfigError

OptimizerName = Literal["radam", "sgd", "adam", "adamw", "adamax", "sgdp", "sgdw", "adabound", "adamp"]
ScheduleName = Literal["plateau", "step", "cosine", "linear", "constant"]
Schedule = LRScheduler | ReduceLROnPlateau

_FROM_TORCH = {"radam": "RAdam", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adamax": "Adamax"}
_FROM_EXTRA = {"sgdp": "SGDP", "sgdw": "SGDW", "adabound": "AdaBound", "adamp": "AdamP"}
_WITH_MOMENTUM = ("sgd", "sgdp", "sgdw")
DEFAULT_MOMENTUM = 0.9


def default_weight_decay(name: OptimizerName) -> float:
    """0.01 for adamw, whose point it is, and 0 for all others (W21)."""
    return 0.01 if name == "adamw" else 0.0


def make_optimizer(
    name: OptimizerName,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float | None = None,
    momentum: float = DEFAULT_MOMENTUM,
    nesterov: bool = False,
    clip_gradient_value: float | None = None,
    clip_gradient_norm: float | None = None,
) -> Optimizer:
    """The optimiser of this name over the parameters that need a gradient.

    learning_rate: adamax runs at twice this rate, as in the release of W21.
    weight_decay: None for the optimiser's own default, see `default_weight_decay`.
    momentum, nesterov: of sgd, sgdp and sgdw; the Adam family keeps its betas of 0.9 and 0.999.
    clip_gradient_value: every entry of the gradient is cut to [-value, value] before each step; None for no clipping.
    clip_gradient_norm: the gradient of all parameters together is shortened to at most this length; None: it is not.
    Raises ConfigError for options that the optimiser does not have, and where the extra package is missing.
    """
    if name not in _FROM_TORCH | _FROM_EXTRA:
        choices = ", ".join(_FROM_TORCH | _FROM_EXTRA)
        raise ConfigError(f"there is no optimizer {name!r}; choose one of: {choices}")
    options: dict[str, Any] = {"lr": learning_rate * (2 if name == "adamax" else 1)}
    options["weight_decay"] = default_weight_decay(name) if weight_decay is None else weight_decay
    if name in _WITH_MOMENTUM:
        options |= {"momentum": momentum, "nesterov": nesterov}
    elif nesterov or momentum != DEFAULT_MOMENTUM:
        raise ConfigError(f"momentum and nesterov belong to {', '.join(_WITH_MOMENTUM)}; leave them out for {name}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = _optimizer_class(name)(trained, **options)

    def clip(*_: Any) -> None:
        if clip_gradient_value is not None:
            nn.utils.clip_grad_value_(trained, clip_gradient_value)
        if clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(trained, clip_gradient_norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _optimizer_class(name: OptimizerName) -> type[Optimizer]:
    if name in _FROM_TORCH:
        return getattr(torch.optim, _FROM_TORCH[name])
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise ConfigError(
            f"the optimizer {name} comes from the package pytorch-optimizer: pip install kshot[optimizers]"
        ) from error
    return getattr(pytorch_optimizer, _FROM_EXTRA[name])


def make_schedule(
    name: ScheduleName,
    optimizer: Optimizer,
    max_epochs: int,
    plateau_patience: int = 4,
    factor: float | Sequence[float] = 0.1,
    milestones: Sequence[int] = (),
) -> Schedule:
    """The learning rate as a function of the epoch, or, for "plateau", of the validation accuracy.

    Raises ConfigError where milestones and schedule do not go together.
    """
    if (name == "step") != bool(milestones):
        raise ConfigError(f"schedule is {name!r} and milestones are {list(milestones)}: step needs them, others do not")
    if name == "plateau":
        if not isinstance(factor, float):
            raise ConfigError(f"factor is {factor}, but the plateau schedule takes one number")
        return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=plateau_patience)
    if name == "step":
        return LambdaLR(optimizer, _steps(milestones, factor))
    if name == "cosine":
        return LambdaLR(optimizer, lambda epoch: (1 + math.cos(math.pi * epoch / max_epochs)) / 2)
    if name == "linear":
        return LambdaLR(optimizer, lambda epoch: 1 - epoch / max_epochs)
    if name == "constant":
        return LambdaLR(optimizer, lambda epoch: 1.0)
    raise ConfigError(f"there is no schedule {name!r}; choose one of: plateau, step, cosine, linear, constant")


def _steps(milestones: Sequence[int], factor: float | Sequence[float]) -> Any:
    factors = list(factor) if isinstance(factor, Sequence) else [factor] * len(milestones)
    if len(factors) != len(milestones):
        raise ConfigError(f"{len(factors)} factors were given for {len(milestones)} milestones; give one for each")
    return lambda epoch: math.prod(part for part, milestone in zip(factors, milestones) if epoch >= milestone)


def advance(schedule: Schedule, accuracy: float | None) -> None:
    """Tell the schedule that an epoch has ended, with this validation accuracy."""
    if isinstance(schedule, ReduceLROnPlateau):
        assert accuracy is not None, "train() refuses a plateau schedule without validation"
        schedule.step(accuracy)
    else:
        schedule.step()
