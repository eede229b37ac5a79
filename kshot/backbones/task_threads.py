"""Tasks side by side on the threads of a CPU: a task is too small a job for a kernel to keep several threads busy."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import chain
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

Part = TypeVar("Part")
Result = TypeVar("Result")


class _Thread(threading.local):
    call: object = None  # of `map_on_threads`, in the threads of a pool alone
    copies: WeakKeyDictionary[nn.Module, nn.Module]  # of networks as they are in this call


_thread = _Thread()


def map_on_threads(function: Callable[[Part], Result], parts: Sequence[Part]) -> Iterator[Result]:
    """`function` of each part, in their order; several parts at a time, each on a thread of its own.

    There are as many threads as `torch.get_num_threads` says, or parts if these are fewer, and every kernel runs on its
    share of them. Whether gradients are recorded is as where this is called. A function that calls a network through
    `torch.func.functional_call` must call what `in_this_thread` makes of it, and must not write what others read.
    After an exception no further part is begun.
    """
    workers = min(torch.get_num_threads(), len(parts))
    if workers < 2 or _thread.call is not None:
        yield from map(function, parts)
        return
    recorded, call = torch.is_grad_enabled(), object()

    def work(part: Part) -> Result:
        if _thread.call is not call:
            _thread.call, _thread.copies = call, WeakKeyDictionary()
        with torch.set_grad_enabled(recorded):
            return function(part)

    futures = [_pool(workers, torch.get_num_threads()).submit(work, part) for part in parts]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()
        wait(futures)


def in_this_thread(network: nn.Module) -> nn.Module:
    """The network itself, or, in a thread of `map_on_threads`, its modules once more around the same tensors.

    `torch.func.functional_call` exchanges the parameters of the modules that it calls, and FiLM hangs hooks on them.
    """
    if _thread.call is None:
        return network
    own = _thread.copies.get(network)
    if own is None:
        tensors = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
        own = _thread.copies[network] = copy.deepcopy(network, tensors)
    return own


@cache
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """A pool each of whose threads has its share of torch's `threads` for the kernels that it starts."""
    ready = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # or else the thread's first kernel would set the number once more
        torch.set_num_threads(threads // workers)
        ready.wait()

    pool = ThreadPoolExecutor(workers, "kshot-tasks")
    for _ in range(workers):
        pool.submit(start)
    ready.wait()
    torch.set_num_threads(threads)  # they have also set what threads to come would start with
    return pool
