"""Optimisers and learning rate schedules by name, with the meaning that W21 and its release give them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from kshot.errors import ConfigError
from kshot.training.muon import Muon
from kshot.training.options import OptimizerName, ResolvedOptions, TrainingOptions

Schedule = LRScheduler | ReduceLROnPlateau

_FROM_TORCH = {"radam": "RAdam", "sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adamax": "Adamax"}
_FROM_EXTRA = {"sgdp": "SGDP", "sgdw": "SGDW", "adabound": "AdaBound", "adamp": "AdamP"}
_WITH_MOMENTUM = ("sgd", "sgdp", "sgdw", "muon")


def make_optimizer(parameters: Iterable[nn.Parameter], options: TrainingOptions) -> Optimizer:
    """The optimiser over the parameters that need a gradient; it clips the gradients before each step.

    Parameters
    ----------
    parameters
        Those without ``requires_grad`` are left out.
    options
        Its fields on optimiser, rate, weight decay, momentum and clipping are read.

    Raises
    ------
    ConfigError
        For options that the optimiser does not have, and if its extra package is missing.
    """
    name = options.optimizer
    settings: dict[str, Any] = {"lr": options.learning_rate * (2 if name == "adamax" else 1)}
    settings["weight_decay"] = options.decay
    if name in _WITH_MOMENTUM:
        settings |= {"momentum": options.momentum, "nesterov": options.nesterov}
        if name == "muon":
            settings["bf16"] = options.precision == "bf16"
    elif options.nesterov or options.momentum != TrainingOptions.momentum:
        raise ConfigError(f"momentum and nesterov belong to {', '.join(_WITH_MOMENTUM)}; leave them out for {name}")
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = _optimizer_class(name)(trained, **settings)

    def clip(*_: Any) -> None:
        if options.clip_gradient_value is not None:
            nn.utils.clip_grad_value_(trained, options.clip_gradient_value)
        if options.clip_gradient_norm is not None:
            nn.utils.clip_grad_norm_(trained, options.clip_gradient_norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


def _optimizer_class(name: OptimizerName) -> type[Optimizer]:
    if name == "muon":
        return Muon
    if name in _FROM_TORCH:
        return getattr(torch.optim, _FROM_TORCH[name])
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise ConfigError(
            f"the optimizer {name} comes from the package pytorch-optimizer: pip install kshot[optimizers]"
        ) from error
    return getattr(pytorch_optimizer, _FROM_EXTRA[name])


def make_schedule(optimizer: Optimizer, options: ResolvedOptions) -> Schedule:
    """The learning rate as a function of the epoch, or, for "plateau", of the validation accuracy."""
    if options.schedule == "plateau":
        factor, patience = options.factor, options.plateau_patience
        assert not isinstance(factor, Sequence), "TrainingOptions refuses a list for the plateau schedule"
        return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)
    epochs = options.max_epochs
    rates: dict[str, Callable[[int], float]] = {
        "step": _steps(options),
        "cosine": lambda epoch: (1 + math.cos(math.pi * epoch / epochs)) / 2,
        "linear": lambda epoch: 1 - epoch / epochs,
        "constant": lambda epoch: 1.0,
    }
    return LambdaLR(optimizer, rates[options.schedule])


def _steps(options: TrainingOptions) -> Callable[[int], float]:
    factor, milestones, every = options.factor, options.milestones or [], options.step_every
    if every is not None:
        assert not isinstance(factor, Sequence), "TrainingOptions refuses a list for equal steps"
        return lambda epoch: factor ** (epoch // every)
    factors = list(factor) if isinstance(factor, Sequence) else [factor] * len(milestones)
    return lambda epoch: math.prod(part for part, milestone in zip(factors, milestones) if epoch >= milestone)


def advance(schedule: Schedule, accuracy: float) -> None:
    """Tell the schedule that an epoch has ended, with this validation accuracy; nan if nothing is held out."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(accuracy)
    else:
        schedule.step()
