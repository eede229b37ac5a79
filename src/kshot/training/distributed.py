"""Several processes under torchrun, each with an equal share of every step's tasks, make the update of a single one.

    torchrun --nproc-per-node 4 -m -- kshot train --run runs/a

starts four; without the ``--``, torchrun takes ``--run`` for an option of its own and refuses it as ambiguous.

The gradients of the objective are means over tasks, so the mean over processes with equal shares is the mean over all
tasks. The same holds for BatchNorm's running statistics, which move once per pass towards the mean over its tasks.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kshot.errors import ConfigError


class Processes:
    """This process among all that train together; joins the others if torchrun started several.

    A process group that exists already is used. The group stays until the program ends: a second training that made a
    new one could meet processes that have not yet left the old one.

    Parameters
    ----------
    device
        "auto" for the GPU of the local rank if there is one, otherwise the CPU; or any torch device.

    Attributes
    ----------
    rank
        Number of this process, 0..count-1.
    count
        Number of processes.
    device
        Where this process computes.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.rank, self.count = 0, 1
        if not dist.is_available():
            return
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # gloo as well as nccl: what the processes agree on at each step must not wait for the GPU
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
            atexit.register(dist.destroy_process_group)
        if dist.is_initialized():
            self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that validates and writes files."""
        return self.rank == 0

    def check_meta_batch(self, meta_batch: int) -> None:
        """ConfigError unless the tasks of a step can be shared equally."""
        if meta_batch % self.count:
            multiple = self.count * max(1, round(meta_batch / self.count))
            raise ConfigError(
                f"a meta batch of {meta_batch} tasks cannot be shared equally by {self.count} processes; "
                f"choose a multiple, such as meta_batch={multiple}, or fewer processes"
            )

    @torch.no_grad()
    def start_alike(self, module: nn.Module) -> None:
        """Give every process the parameters and buffers of the first."""
        if self.count > 1:
            for tensor in [*module.parameters(), *module.buffers()]:
                dist.broadcast(tensor.data, 0)

    def wait(self) -> None:
        """Wait until every process is here, and all that the first has written before can be read."""
        self.any([False])

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether it is true in any process."""
        if self.count == 1:
            return list(flags)
        agreed = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return agreed.bool().tolist()

    def from_first(self, values: Sequence[float]) -> list[float]:
        """The values of the first process."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.tolist()

    @torch.no_grad()
    def average(self, module: nn.Module, metrics: Tensor) -> None:
        """Replace gradients, floating buffers and `metrics` by their means over all processes, in place.

        A parameter that has a gradient in one process only counts as zero in the others. Integer buffers count passes
        or tasks of all processes, and are the same in each.
        """
        if self.count == 1:
            return
        parameters = list(module.parameters())
        used = self.any([parameter.grad is not None for parameter in parameters])
        tensors = [metrics, *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
        for parameter, is_used in zip(parameters, used):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                tensors.append(parameter.grad)
        for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
            self._average_in_place([tensor for tensor in tensors if tensor.dtype == dtype])

    def _average_in_place(self, tensors: list[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(mean.view(tensor.shape))


def resolve_device(device: str) -> torch.device:
    """The device of this name, which becomes torch's current one if it is a GPU.

    A GPU without a number is that of torchrun's local rank.

    Parameters
    ----------
    device
        A torch device, or "auto" for a GPU if there is one, otherwise the CPU.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; choose auto, cpu, cuda or cuda:0") from error
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cpu" and chosen.index):
        raise ConfigError(f"kshot does not compute on the device {device!r}; choose auto, cpu, cuda or cuda:0")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device is {device!r}, but torch sees no GPU here; choose device=cpu")
        index = chosen.index if chosen.index is not None else int(os.environ.get("LOCAL_RANK", "0"))
        chosen = torch.device("cuda", index)
        torch.cuda.set_device(chosen)
    return chosen
