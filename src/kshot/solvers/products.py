"""Products of a few vectors with the images of a task, for a batch of tasks: what most heads spend their time on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any  # a tensor, or a numpy array

SHORTEST = 1e-12  # features are divided by this at least, so that those of zeros stay zero

# Up to here OpenBLAS, numpy's library, multiplies without copying its arguments into another layout first. That takes a
# third of the time of MKL, torch's library, on 5 vectors with 75 images, and a half on 8 images with as many.
_MOST_MULTIPLICATIONS = 1_000_000
_MOST_VALUES_BY_ROWS = 1_200  # of the result, if inner products of rows are taken
_MOST_THREADS = 2  # with more of them, torch shares the tasks out and is as fast
_ROWS = 8  # of the images that are multiplied with all later ones at once
_CACHE_BYTES = 3 << 20  # of the tasks that a stage takes at once: they stay in the cache, and calls cost little


def product(left: Tensor, right: Tensor, *, plus: Tensor | None = None) -> Tensor:
    """left (B, N, K) @ right (B, K, M), and `plus` (B or 1, N or 1, M or 1) if given; differentiable.

    On a CPU with few threads, if no gradient is recorded and the product is small, numpy multiplies. The result differs
    from torch's by rounding alone.
    """
    columns = right.shape[2]
    size = left.shape[1] * columns
    small = size * right.shape[1] <= _MOST_MULTIPLICATIONS and (size <= _MOST_VALUES_BY_ROWS or right.stride(2) == 1)
    if not (small and _numpy_takes(left, right)):
        return left @ right if plus is None else torch.baddbmm(plus, left, right)
    rows, others = left.detach().numpy(), right.detach().numpy()
    with np.errstate(all="ignore"):  # what is not finite stays so, and is refused elsewhere
        if left.shape[1] <= columns:
            result = torch.from_numpy(np.matmul(rows, others))
        else:  # few vectors before many take two thirds of the time
            result = torch.from_numpy(np.matmul(others.swapaxes(1, 2), rows.swapaxes(1, 2))).mT.contiguous()
    return result if plus is None else result.add_(plus)


def inner_products(images: Tensor) -> Tensor:
    """The inner products (B, M, M) of the images (B, M, D) of each task with each other."""
    return in_stages(lambda part: (own_products(part),), images, vectors=_ROWS)[0]


def in_stages(stage: Callable[..., tuple[Array, ...]], *tensors: Tensor, vectors: int) -> tuple[Tensor, ...]:
    """What a stage makes of tasks: ``stage(*tensors)``, the first dimension of all of which is that of the tasks.

    If numpy multiplies, the stage is called with few tasks at a time, as numpy arrays: their features are read from
    memory once, however often the stage uses them. A stage does well to ask for `lengths` first: inner products of what
    is not in the cache yet are slow.

    Parameters
    ----------
    stage
        Uses what tensors and arrays have in common, such as operators and the functions below.
    tensors
        What it takes.
    vectors
        How many vectors it multiplies with the images of a task.
    """
    images = max(tensors, key=lambda tensor: tensor[0].numel())[0]
    size = vectors * images.shape[0]
    small = size <= _MOST_VALUES_BY_ROWS and size * images.shape[1] <= _MOST_MULTIPLICATIONS
    if not (small and _numpy_takes(*tensors)):
        return stage(*tensors)
    of_task = sum(tensor[0].numel() for tensor in tensors) * images.element_size()
    at_once = max(1, _CACHE_BYTES // of_task)
    values = [tensor.detach().numpy() for tensor in tensors]
    with np.errstate(all="ignore"):
        starts = range(0, len(values[0]), at_once)
        results = [stage(*(value[start : start + at_once] for value in values)) for start in starts]
    return tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*results))


def lengths(vectors: Array) -> Array:
    """The Euclidean lengths (B, M, 1) of vectors (B, M, D); differentiable."""
    if isinstance(vectors, Tensor):
        return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    squared = np.matmul(vectors[:, :, None], vectors[:, :, :, None])
    return np.sqrt(squared[:, :, :, 0])


def to_unit_length(vectors: Array) -> Array:
    """The factors (B, 1, M) that bring vectors (B, M, D) to unit length; those of zeros stay zero."""
    return 1 / lengths(vectors).clip(SHORTEST).swapaxes(1, 2)


def own_products(images: Array) -> Array:
    """The inner products (B, M, M) of images (B, M, D) with each other."""
    if isinstance(images, Tensor):
        return images @ images.mT
    count = images.shape[1]
    result = np.empty((len(images), count, count), images.dtype)
    for start in range(0, count, _ROWS):
        end = start + _ROWS
        later = images[:, start:].swapaxes(1, 2)
        np.matmul(images[:, start:end], later, out=result[:, start:end, start:])
        result[:, end:, start:end] = result[:, start:end, end:].swapaxes(1, 2)
    return result


def joined(*rows: Array) -> Array:
    """Rows (B, M, D) of several tensors or arrays, one below the other."""
    return torch.cat(rows, 1) if isinstance(rows[0], Tensor) else np.concatenate(rows, 1)


def exponential(values: Array) -> Array:
    """exp of each value."""
    return values.exp() if isinstance(values, Tensor) else np.exp(values)


def largest(values: Array) -> Array:
    """The largest value (B, 1, T) of each column of (B, N, T)."""
    return values.amax(1, keepdim=True) if isinstance(values, Tensor) else values.max(1, keepdims=True)


def _numpy_takes(*tensors: Tensor) -> bool:
    first = tensors[0]
    return (
        first.dtype in (torch.float32, torch.float64)
        and all(tensor.is_cpu and tensor.dtype == first.dtype for tensor in tensors)
        and torch.get_num_threads() <= _MOST_THREADS
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and not torch.compiler.is_compiling()
    )
