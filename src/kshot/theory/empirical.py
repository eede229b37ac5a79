"""The kernels of a network of finite width, at the weights that it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from kshot.errors import ConfigError, DataError, check_choice
from kshot.theory.infinite_width import Kernels

Method = Literal["auto", "layers", "jacobians"]
_JACOBIAN_BYTES = 2**29  # the Jacobians of so many points at once take no more


def empirical_kernels(
    model: nn.Module, x1: Tensor, x2: Tensor | None = None, *, point_ndim: int = 1, method: Method = "auto"
) -> Kernels:
    """The NTK of `model` and the part that its last layer contributes, averaged over outputs: (..., n, m) each.

    The last layer is the one with weights that is called last. In the NTK parametrisation (`ReLUNetwork`) both
    kernels approach those of `kernels` at rate 1 / sqrt(width). No gradient flows through the result.

    Parameters
    ----------
    model
        Maps points (n, *point) to outputs (n,) or (n, outputs), each point on its own. Frozen weights are left out.
    x1
        Points (..., n, *point).
    x2
        Points (..., m, *point), whose leading shape broadcasts with that of `x1`; None for `x1` itself.
    point_ndim
        Number of dimensions of a point, 3 for images.
    method
        "layers" sums ``(g g') * (a a')`` over layers, with inputs a of the layer and gradients g of the output; it
        needs a model whose weights all belong to Linear layers that are called once. "jacobians" suits every model and
        takes up to 100 times as long. "auto" chooses "layers" if it can.

    Raises
    ------
    ConfigError
        For a model whose points influence one another (BatchNorm or Dropout in training mode), or that the method does
        not suit.
    DataError
        For points or outputs of another shape.
    """
    check_choice("method", method, get_args(Method))
    if any(isinstance(module, _BatchNorm | _DropoutNd) and module.training for module in model.modules()):
        raise ConfigError("the model has BatchNorm or Dropout in training mode; call model.eval() first")
    if x1.ndim <= point_ndim or (x2 is not None and x2.ndim <= point_ndim):
        raise DataError(f"x1 and x2 need shapes (..., points, *point) with {point_ndim} dimensions per point")
    second = x1 if x2 is None else x2
    if x1.shape[x1.ndim - point_ndim :] != second.shape[second.ndim - point_ndim :]:
        raise DataError(f"the points of x1 {tuple(x1.shape)} and of x2 {tuple(second.shape)} differ in shape")
    layers, last = _layers_called(model, x1.flatten(0, -point_ndim - 1)[:1])
    if method == "layers" and not layers:
        raise ConfigError("the model has weights outside Linear layers that are called once; use method='jacobians'")
    if layers and method != "jacobians":
        parts1 = _parts(model, x1, point_ndim)
        return _sum_over_layers(parts1, parts1 if x2 is None else _parts(model, second, point_ndim))
    return _from_jacobians(model, last, x1, second, point_ndim)


class _Part(NamedTuple):
    """What a layer contributes: its inputs (..., n, fan_in) and the gradients (..., n, fan_out) of each output."""

    inputs: Tensor
    gradients: list[Tensor]
    bias: bool


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor, Tensor]]]:
    """Module, input and output of every call of a module that has trainable weights of its own."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        calls.append((module, inputs[0].detach(), output))
        return output.clone()  # what follows may work in place

    handles = [
        module.register_forward_hook(record)
        for module in model.modules()
        if any(weight.requires_grad for weight in module.parameters(recurse=False))
    ]
    try:
        with torch.enable_grad():
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def _layers_called(model: nn.Module, point: Tensor) -> tuple[bool, nn.Module]:
    """Whether all weights belong to Linear layers that are called once on vectors, and the layer called last."""
    with _recorded(model) as calls:
        model(point)
    if not calls:
        raise ConfigError("no layer with trainable weights is called in the model")
    modules = [module for module, _, _ in calls]
    linear = all(type(module) is nn.Linear and inputs.ndim == 2 for module, inputs, _ in calls)
    return linear and len(set(modules)) == len(modules), modules[-1]


def _parts(model: nn.Module, points: Tensor, point_ndim: int) -> list[_Part]:
    """What each layer contributes at the points (..., n, *point)."""
    shape = points.shape[: points.ndim - point_ndim]
    with _recorded(model) as calls:
        outputs = _as_matrix(model(points.flatten(0, -point_ndim - 1)))
        recorded = [output for _, _, output in calls]
        gradients = [torch.autograd.grad(column.sum(), recorded, retain_graph=True) for column in outputs.unbind(dim=1)]
    return [
        _Part(
            inputs.unflatten(0, shape),
            [of_output[position].unflatten(0, shape) for of_output in gradients],
            any(weight.ndim == 1 and weight.requires_grad for weight in module.parameters()),
        )
        for position, (module, inputs, _) in enumerate(calls)
    ]


def _sum_over_layers(parts1: list[_Part], parts2: list[_Part]) -> Kernels:
    """The NTK, and the contribution of the layer that is called last."""
    total = nngp = torch.zeros(())
    for first, second in zip(parts1, parts2):
        products = first.inputs @ second.inputs.mT + float(first.bias)
        pairs = [gradient1 @ gradient2.mT for gradient1, gradient2 in zip(first.gradients, second.gradients)]
        nngp = products * torch.stack(pairs).mean(0)
        total = total + nngp
    return Kernels(nngp, total)


def _from_jacobians(model: nn.Module, last: nn.Module, x1: Tensor, x2: Tensor, point_ndim: int) -> Kernels:
    """Both kernels as inner products of Jacobians, in pieces that fit into memory."""
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    of_last = {id(weight) for weight in last.parameters(recurse=False)}
    head = [name for name, weight in model.named_parameters() if weight.requires_grad and id(weight) in of_last]

    def outputs(given: dict[str, Tensor], point: Tensor) -> Tensor:
        return _as_matrix(functional_call(model, given, (point[None],)))[0]

    leading = torch.broadcast_shapes(x1.shape[: -point_ndim - 1], x2.shape[: -point_ndim - 1])
    point = x1.shape[x1.ndim - point_ndim :]
    sets1, sets2 = (
        points.expand(*leading, -1, *point).reshape(-1, points.shape[-point_ndim - 1], *point) for points in (x1, x2)
    )
    jacobians = vmap(jacrev(outputs), (None, 0))
    numbers = sum(weight.numel() * weight.element_size() for weight in weights.values())
    size = max(1, _JACOBIAN_BYTES // (numbers * outputs(weights, sets1[0, 0]).numel()))

    def gram(first: Tensor, second: Tensor) -> Tensor:
        rows = []
        for piece in first.split(size):
            left = jacobians(weights, piece)
            rows.append([_products(left, jacobians(weights, other), head) for other in second.split(size)])
        return torch.cat([torch.cat(row, dim=-1) for row in rows], dim=-2)

    both = torch.stack([gram(*pair) for pair in zip(sets1, sets2)], dim=1)
    return Kernels(*both.reshape(2, *leading, *both.shape[-2:]))


def _products(jacobian1: dict[str, Tensor], jacobian2: dict[str, Tensor], head: list[str]) -> Tensor:
    """Inner products (2, n, m), averaged over outputs: over the weights named in `head`, and over all."""
    products = {
        name: torch.einsum("iop,jop->ij", part.flatten(2), jacobian2[name].flatten(2)) / part.shape[1]
        for name, part in jacobian1.items()
    }
    of_head = torch.stack([products[name] for name in head])
    return torch.stack([of_head.sum(0), torch.stack(list(products.values())).sum(0)])


def _as_matrix(outputs: Tensor) -> Tensor:
    """Outputs as (points, outputs)."""
    if outputs.ndim not in (1, 2):
        raise DataError(
            f"the model's outputs for a batch have shape {tuple(outputs.shape)}, not (points,) or (points, outputs)"
        )
    return outputs[:, None] if outputs.ndim == 1 else outputs
