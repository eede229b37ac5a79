"""Says that a batch of images holds several tasks, for the layers whose result depends on where a task ends.

BatchNorm takes its statistics over one task, and dropout draws its mask from the key of the task, so that a batched
pass over B tasks equals B passes over one task each, whichever process makes them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor

from kshot import seeding


@dataclass
class TaskBatch:
    """The arguments of `batch_of_tasks`, `keys` as int64 bits, and in `draws` the number of masks drawn from them."""

    count: int
    keys: Tensor | None
    joint: bool
    total: int
    own_statistics: bool = False
    traced: bool = False
    draws: int = 0


class _Thread(threading.local):
    def __init__(self) -> None:  # torch.compile does not see that an attribute hides one of the class
        self.tasks = TaskBatch(count=1, keys=None, joint=False, total=1)


_thread = _Thread()


def current_task_batch() -> TaskBatch:
    """This thread's innermost `batch_of_tasks`; outside of all, one task without a key."""
    return _thread.tasks


@contextmanager
def batch_of_tasks(
    count: int,
    keys: NDArray[np.uint64] | None = None,
    *,
    joint: bool = False,
    total: int | None = None,
    own_statistics: bool = False,
    traced: bool = False,
) -> Iterator[None]:
    """Within this context the leading axis of the images, (B*M, C, H, W), holds B = `count` tasks of M images each.

    Parameters
    ----------
    count
        B, the number of tasks.
    keys
        (B,) uint64, one per task. Dropout masks are then a pure function of the key and of the layer's position in the
        pass: the same in every process that handles the task, and after every resume. Without keys they come from
        torch's global generator.
    joint
        BatchNorm in training takes its statistics over the images of all tasks in all processes, instead of over each
        task. Every process must then make the same passes, and `backward` gives the gradient of the SUM of the
        processes' losses.
    total
        Tasks of this pass in all processes together, by which DropBlock's ramp advances; None for `count` times the
        number of processes, whose shares are equal.
    own_statistics
        BatchNorm takes the statistics of each task in evaluation, too, and leaves its running ones as they are.
    traced
        The pass runs under a transform of torch.func, such as vmap; goes with `own_statistics`.

    Raises
    ------
    ValueError
        The number of keys is not `count`.
    """
    if keys is not None and len(keys) != count:
        raise ValueError(f"{len(keys)} keys were given for {count} tasks; give one key for each task")
    before = _thread.tasks
    words = None if keys is None else torch.from_numpy(np.array(keys, np.uint64).view(np.int64))
    everywhere = count * processes() if total is None else total
    _thread.tasks = TaskBatch(count, words, joint, everywhere, own_statistics, traced)
    try:
        yield
    finally:
        _thread.tasks = before


def processes() -> int:
    """The number of processes that share the tasks of a step."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def uniform_like(images: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float32, of the shape and on the device of `images`, (B*M, C, H, W).

    A task with a key gets its own numbers. They lie in memory as channels_last, and are the same for either memory
    format of `images`.
    """
    count, channels, height, width = images.shape
    shape, tasks = (count, height, width, channels), current_task_batch()
    if tasks.keys is None:
        return torch.rand(shape, device=images.device).permute(0, 3, 1, 2)
    draw, tasks.draws = tasks.draws, tasks.draws + 1
    return torch.ops.kshot.uniform_by_key(tasks.keys, draw, shape, images.device).permute(0, 3, 1, 2)


# An operator of its own, since torch.compile can neither trace a generator nor, with a varying number of tasks, break
# the graph around one.
@torch.library.custom_op(
    "kshot::uniform_by_key", mutates_args=(), schema="(Tensor keys, int draw, SymInt[] shape, Device device) -> Tensor"
)
def _uniform_by_key(keys: Tensor, draw: int, shape: Sequence[int], device: torch.device) -> Tensor:
    numbers = torch.empty(shape, device=device)
    # torch takes seeds below 2**63 on every device
    seeds = seeding.bits(keys.numpy().view(np.uint64), draw) >> np.uint64(1)
    for seed, share in zip(seeds.tolist(), numbers.chunk(len(keys))):
        share.uniform_(generator=torch.Generator(device).manual_seed(seed))
    return numbers


@_uniform_by_key.register_fake
def _(keys: Tensor, draw: int, shape: Sequence[int], device: torch.device) -> Tensor:
    return torch.empty(shape, device=device)
