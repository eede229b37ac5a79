"""Products of a few vectors with the images of a task, for a batch of tasks: what most heads spend their time on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Up to here OpenBLAS, numpy's library, multiplies without copying its arguments into another layout first. That takes a
# third of the time of MKL, torch's library, on 5 vectors with 75 images, and a half on 8 images with as many.
_MOST_MULTIPLICATIONS = 1_000_000
_MOST_VALUES_BY_ROWS = 1_200  # of the result, if inner products of rows are taken
_MOST_THREADS = 2  # with more of them, torch shares the tasks out and is as fast
_ROWS = 8  # of the images that are multiplied with all later ones at once


def product(left: Tensor, right: Tensor, *, plus: Tensor | None = None) -> Tensor:
    """left (B, N, K) @ right (B, K, M), and `plus` (B or 1, N or 1, M or 1) if given; differentiable.

    On a CPU with few threads, if no gradient is recorded and the product is small, numpy multiplies. The result differs
    from torch's by rounding alone.
    """
    if not _suits_numpy(left, right):
        return left @ right if plus is None else torch.baddbmm(plus, left, right)
    with np.errstate(all="ignore"):  # what is not finite stays so, and is refused elsewhere
        result = torch.from_numpy(np.matmul(left.detach().numpy(), right.detach().numpy()))
    return result if plus is None else result.add_(plus)


def inner_products(images: Tensor) -> Tensor:
    """The inner products (B, M, M) of the images (B, M, D) of each task with each other.

    Where numpy multiplies, one half of them is computed, in blocks of rows, and the other half is copied.
    """
    count = images.shape[1]
    if not _suits_numpy(images[:, :_ROWS], images.mT):
        return images @ images.mT
    values = images.detach().numpy()
    result = images.new_empty(len(images), count, count)
    into = result.numpy()
    with np.errstate(all="ignore"):
        for start in range(0, count, _ROWS):
            end = start + _ROWS
            later = values[:, start:].transpose(0, 2, 1)
            np.matmul(values[:, start:end], later, out=into[:, start:end, start:])
            result[:, end:, start:end] = result[:, start:end, end:].mT
    return result


def lengths(vectors: Tensor) -> Tensor:
    """The Euclidean lengths (B, M, 1) of vectors (B, M, D); differentiable."""
    if not _suits_numpy(vectors[:, :1], vectors[:, :1].mT):
        return torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    values = vectors.detach().numpy()
    with np.errstate(all="ignore"):
        squared = np.matmul(values[:, :, None], values[:, :, :, None])
    return torch.from_numpy(squared)[:, :, :, 0].sqrt_()


def _suits_numpy(left: Tensor, right: Tensor) -> bool:
    rows, inner, columns = *left.shape[1:], right.shape[2]
    return (
        rows * inner * columns <= _MOST_MULTIPLICATIONS
        and (right.stride(2) == 1 or rows * columns <= _MOST_VALUES_BY_ROWS)
        and left.device.type == right.device.type == "cpu"
        and left.dtype == right.dtype
        and left.dtype in (torch.float32, torch.float64)
        and torch.get_num_threads() <= _MOST_THREADS
        and not (torch.is_grad_enabled() and (left.requires_grad or right.requires_grad))
        and not torch.compiler.is_compiling()
    )
