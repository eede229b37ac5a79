"""Chunks of a batch of tasks: as many tasks as hold their weights at the same time, one after the other or on threads.

Chunks change rounding only. On a CPU the fastest chunk is usually a single task: several convolutions at once gain
nothing there, and a thread of its own per task does. On a GPU it is the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn

from kshot.backbones.dropout import drops_values
from kshot.backbones.registry import Backbone, is_compiled
from kshot.backbones.task_threads import map_on_threads
from kshot.data.episodes import Episodes
from kshot.errors import DivergenceError

Result = TypeVar("Result")


@contextmanager
def in_chunks(
    function: Callable[[Episodes], Result], episodes: Episodes, tasks_at_once: int, *, on_threads: bool = False
) -> Iterator[Iterator[tuple[float, Result]]]:
    """Within this context, an iterator over the chunks of a batch: each one's share of the tasks, and its result.

    Nothing stands between the caller and `function` in a traceback, unless there are threads: the iterator is made of
    `zip` and `map`.

    Parameters
    ----------
    function
        What is computed of a chunk, which is a batch of tasks itself.
    episodes
        The batch; its chunks come in the order of its tasks, so that sums over them are the same every time.
    tasks_at_once
        Tasks per chunk; the last chunk may hold fewer.
    on_threads
        Compute several chunks at the same time; see `map_on_threads`.

    Raises
    ------
    DivergenceError
        As `function` raises it, with the place of the task in the batch instead of that in the chunk.
    """
    starts = range(0, episodes.tasks, tasks_at_once)
    parts = [episodes.part(start, start + tasks_at_once) for start in starts]
    results: Iterator[Result] = map_on_threads(function, parts) if on_threads else map(function, parts)
    awaited = 0

    def shares() -> Iterator[float]:
        nonlocal awaited
        for start, part in zip(starts, parts):
            awaited = start
            yield part.tasks / episodes.tasks

    try:
        yield zip(shares(), results)  # which asks for the share before the result
    except DivergenceError as error:
        if error.task is not None:
            error.task += awaited
        raise
    finally:
        if isinstance(results, Generator):
            results.close()  # ends the work of the threads


def chunk_size(network: nn.Module, episodes: Episodes, *, tasks_at_once: int | None, usual: int | None) -> int:
    """How many tasks hold their weights at the same time.

    Parameters
    ----------
    network
        One that drops values takes a single task: masks are drawn per pass, which several tasks would share.
    episodes
        The batch of tasks.
    tasks_at_once
        What the user asked for; None for the default.
    usual
        What the learner asks for by default; None for one task of images on a CPU, and else for the whole batch: the
        small layers of regression gain much from several tasks at once.
    """
    if drops_values(network):
        return 1
    if tasks_at_once is not None:
        return tasks_at_once
    if usual is not None:
        return min(usual, episodes.tasks)
    of_images = not episodes.support_labels.is_floating_point()
    return 1 if of_images and episodes.support.device.type == "cpu" else episodes.tasks


def may_use_threads(network: nn.Module, backbone: Backbone, episodes: Episodes) -> bool:
    """Whether tasks of one chunk each may run on threads: on a CPU, if the network allows several at the same time.

    A network that drops values draws from a generator that threads would share.
    """
    on_cpu = episodes.support.device.type == "cpu"
    return on_cpu and backbone.threads_at_once and not drops_values(network) and not is_compiled(network)
