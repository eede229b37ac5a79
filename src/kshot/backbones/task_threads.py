"""Tasks on several threads of a CPU at the same time, since one task is too small to keep several threads busy."""

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

    There are `torch.get_num_threads` threads, or as many as parts if these are fewer, and every kernel runs on its
    share of torch's threads. At most one result more than there are threads is held before the caller takes it.
    Recording of gradients and autocast are as in the calling thread. After an exception no further part is begun.

    Parameters
    ----------
    function
        If it calls a network through `torch.func.functional_call`, it must call what `in_this_thread` makes of the
        network. It must not write what other threads read.
    parts
        The arguments, one per call.
    """
    workers = min(torch.get_num_threads(), len(parts))
    if workers < 2 or _thread.call is not None:
        return map(function, parts)
    return _on_threads(function, parts, workers)


def _on_threads(function: Callable[[Part], Result], parts: Sequence[Part], workers: int) -> Iterator[Result]:
    pool, call, failed = _pool(workers, torch.get_num_threads()), object(), [len(parts)]
    recorded = torch.is_grad_enabled()
    dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def work(number: int) -> Result:
        if number > min(failed):  # the result is never used, since the exception of an earlier part comes first
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
    """A module with new dictionaries of parameters, buffers, hooks and modules, the modules copied, too."""
    if module not in known:
        copied = known[module] = module.__new__(type(module))
        for name, value in vars(module).items():
            copied.__dict__[name] = value.copy() if isinstance(value, dict) else value
        children = copied.__dict__["_modules"]
        children.update({name: child and _copied(child, known) for name, child in children.items()})
    return known[module]


@lru_cache(maxsize=1)
def _pool(workers: int, threads: int) -> ThreadPoolExecutor:
    """A pool each of whose threads has its share of torch's `threads` for the kernels that it starts."""
    ready = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # otherwise the thread's first kernel would set the number again
        torch.set_num_threads(threads // workers)
        ready.wait()

    pool = ThreadPoolExecutor(workers, "kshot-tasks")
    try:
        for _ in range(workers):
            pool.submit(start)
        ready.wait()
    except BaseException:
        ready.abort()  # so that no thread waits for ever
        raise
    torch.set_num_threads(threads)  # the threads have also set the number that new threads start with
    return pool
