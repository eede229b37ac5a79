"""A network with different weights for each task, which learners that adapt weights call instead of the network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kshot.backbones.film import Modulations, modulated
from kshot.backbones.task_batch import batch_of_tasks
from kshot.backbones.task_threads import in_this_thread

Parameters = Mapping[str, Tensor]


def shared_weights(network: nn.Module, tasks: int) -> dict[str, Tensor]:
    """The parameters of a network as tensors (B, ...) that are the same for each of B tasks; gradients add up."""
    return {name: weight.expand(tasks, *weight.shape) for name, weight in network.named_parameters()}


def forward_per_task(
    network: nn.Module,
    parameters: Parameters,
    inputs: Tensor,
    *,
    parts: int = 1,
    modulations: Modulations | None = None,
) -> Tensor:
    """Outputs (B, M, ...) of a network for inputs (B, M, ...), task b with its own weights ``parameters[name][b]``.

    BatchNorm takes the statistics of each task's own images, in training and in evaluation, and tracks none.

    A single task goes through the network's ordinary kernels, so that a loop over tasks costs no more than a loop;
    several go through `torch.func.vmap`, or one by one if vmap has no rule for one of the network's layers. First and
    second derivatives are exact either way.

    Parameters
    ----------
    network
        The network.
    parameters
        All parameters of the network by name, (B, ...) each.
    inputs
        (B, M, ...).
    parts
        G, the number of consecutive parts of equal size among the M inputs of a task, each of which is normalised by
        its own statistics.
    modulations
        FiLM's scale and shift (B, C) of layers by their names, as for `modulated`; None for no modulation.
    """
    network, modulations = in_this_thread(network), dict(modulations or {})
    if len(inputs) == 1:  # squeezed: the gradient of an indexed tensor would be written into zeros
        weights = {name: weight.squeeze(0) for name, weight in parameters.items()}
        single = {name: (scale[0], shift[0]) for name, (scale, shift) in modulations.items()}
        with batch_of_tasks(parts, own_statistics=True):
            return _forward(network, weights, single, inputs[0]).unsqueeze(0)
    with batch_of_tasks(parts, own_statistics=True, traced=True):
        try:
            return vmap(partial(_forward, network), randomness="different")(dict(parameters), modulations, inputs)
        except RuntimeError as error:
            if "atching rule" not in str(error):
                raise

    def alone(task: slice) -> Tensor:
        weights = {name: weight[task] for name, weight in parameters.items()}
        of_task = {name: (scale[task], shift[task]) for name, (scale, shift) in modulations.items()}
        return forward_per_task(network, weights, inputs[task], parts=parts, modulations=of_task)

    # vmap has no rule for one of the layers, such as an LSTM
    return torch.cat([alone(slice(task, task + 1)) for task in range(len(inputs))])


def _forward(network: nn.Module, weights: Parameters, modulations: Modulations, images: Tensor) -> Tensor:
    with modulated(network, modulations):
        return functional_call(network, dict(weights), (images,))
