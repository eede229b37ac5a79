"""Tasks side by side on the threads of a CPU: a task is too small a job for a kernel to keep several threads busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from functools import lru_cache
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
    share of them. Of the results that nobody has asked for yet, no more are held than there are threads, and one.
    Whether gradients are recorded, and autocast, are as where this is called. A function that calls a network through
    `torch.func.functional_call` must call what `in_this_thread` makes of it, and must not write what others read.
    After an exception no further part is begun.
    """
    workers = min(torch.get_num_threads(), len(parts))
    if workers < 2 or _thread.call is not None:
        yield from map(function, parts)
        return
    pool, call, failed = _pool(workers, torch.get_num_threads()), object(), [len(parts)]
    recorded = torch.is_grad_enabled()
    dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def work(number: int) -> Result:
        if number > min(failed):  # nobody asks for the result, since the exception of an earlier part comes first
            raise CancelledError
        if _thread.call is not call:
            _thread.call, _thread.copies = call, WeakKeyDictionary()
        try:
            with torch.set_grad_enabled(recorded), torch.autocast("cpu", dtype, enabled):
                return function(parts[number])
        except BaseException:
            failed.append(number)
            raise

    futures: deque[Future[Result]] = deque()
    try:
        for number in range(len(parts)):
            if len(futures) > workers:
                yield futures.popleft().result()
            futures.append(pool.submit(work, number))
        while futures:
            yield futures.popleft().result()
    finally:
        failed.append(-1)
        wait(futures)


def in_this_thread(network: nn.Module) -> nn.Module:
    """The network itself, or, in a thread of `map_on_threads`, its modules once more around the same tensors.

    `torch.func.functional_call` exchanges the parameters of the modules that it calls, and FiLM hangs hooks on them.
    """
    if _thread.call is None:
        return network
    if network not in _thread.copies:
        _thread.copies[network] = _copied(network, {})
    return _thread.copies[network]


def _copied(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """A module with dictionaries of its own, of parameters, buffers, hooks and modules, the latter copied, too."""
    if module not in known:
        own = known[module] = module.__new__(type(module))
        for name, value in vars(module).items():
            own.__dict__[name] = value.copy() if isinstance(value, dict) else value
        children = own.__dict__["_modules"]
        children.update({name: child and _copied(child, known) for name, child in children.items()})
    return known[module]


@lru_cache(maxsize=1)
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """A pool each of whose threads has its share of torch's `threads` for the kernels that it starts."""
    ready = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # or else the thread's first kernel would set the number once more
        torch.set_num_threads(threads // workers)
        ready.wait()

    pool = ThreadPoolExecutor(workers, "kshot-tasks")
    try:
        for _ in range(workers):
            pool.submit(start)
        ready.wait()
    except BaseException:
        ready.abort()  # nobody waits for ever
        raise
    torch.set_num_threads(threads)  # they have also set what threads to come would start with
    return pool
