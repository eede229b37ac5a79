"""Dropout and DropBlock whose masks are a pure function of the task's key within ``batch_of_tasks(B, keys)``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from kshot.backbones.task_batch import current_task_batch, processes, uniform_like


class Dropout(nn.Module):
    """Sets each value to zero with probability `rate` in training, and scales the others by 1 / (1 - rate).

    Parameters
    ----------
    rate
        Probability of zero, at least 0 and below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, maps: Tensor) -> Tensor:
        """The maps (B*M, C, H, W) of B tasks, some of their values dropped in training."""
        if not self.training or self.rate == 0:
            return maps
        if current_task_batch().keys is None:
            return functional.dropout(maps, self.rate)
        keep = (uniform_like(maps) >= self.rate).to(maps.dtype)
        return maps * keep.div_(1 - self.rate)


class DropBlock(nn.Module):
    """Sets squares of each channel's map to zero in training (Ghiasi et al. 2018), more of them as training goes on.

    At each place at which a square fits into the map, one has its upper left corner with probability
    gamma = (1 - keep) / size**2 * f**2 / (f - size + 1)**2, f being the map's side. The remaining values of a task are
    scaled up to make up for the dropped ones. The buffer ``training_tasks`` counts the tasks that went through in
    training; it is saved and loaded with the weights, so that a resumed run continues the ramp.

    Parameters
    ----------
    rate
        Share of the map that is dropped at the end of the ramp.
    size
        Side of a square; a map smaller than that loses the whole channel.
    ramp_tasks
        The keep probability falls linearly from 1 to 1 - rate over this number of training tasks.
    """

    training_tasks: Tensor

    def __init__(self, rate: float, *, size: int, ramp_tasks: int) -> None:
        super().__init__()
        self.rate, self.size, self.ramp_tasks = rate, size, ramp_tasks
        self.register_buffer("training_tasks", torch.zeros((), dtype=torch.int64))

    def drop_probability(self) -> Tensor:
        """1 - keep at this point of the ramp, a scalar tensor."""
        return self.rate * (self.training_tasks / self.ramp_tasks).clamp(max=1)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps (B*M, C, H, W) of B tasks, some of their values dropped in training."""
        if not self.training or self.rate == 0:
            return maps
        tasks = current_task_batch()
        if not tasks.own_statistics:  # otherwise a task makes many passes, and the learner counts it once
            self.training_tasks += tasks.total
        keep = self._keep_mask(maps).unflatten(0, (tasks.count, -1))
        kept = keep.mean((1, 2, 3, 4), keepdim=True).clamp(min=1 / keep[0].numel())
        return maps * (keep / kept).flatten(0, 1).to(maps.dtype)

    def _keep_mask(self, maps: Tensor) -> Tensor:
        """Ones and zeros of the shape of `maps`, float32."""
        side = maps.shape[-1]
        size = min(self.size, side)
        places = side - size + 1
        gamma = self.drop_probability() / size**2 * side**2 / places**2
        corners = (uniform_like(maps[..., :places, :places]) < gamma).float()
        return 1 - functional.max_pool2d(functional.pad(corners, [size - 1] * 4), size, stride=1)


def drops_values(network: nn.Module) -> bool:
    """Whether a layer of the network draws random masks as it is now."""
    rates = [
        layer.rate if isinstance(layer, (Dropout, DropBlock)) else layer.p
        for layer in network.modules()
        if layer.training and isinstance(layer, (Dropout, DropBlock, _DropoutNd))
    ]
    return any(rate > 0 for rate in rates)


@torch.no_grad()
def advance_ramps(network: nn.Module, tasks: int) -> None:
    """Count this number of training tasks in each process, for learners whose tasks make many passes each."""
    for layer in network.modules():
        if isinstance(layer, DropBlock):
            layer.training_tasks += tasks * processes()
