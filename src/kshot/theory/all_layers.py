"""The framework of W21 (eqs. 10-13) with all layers adapting (Appendix A): the "head" is the whole network.

`kshot.theory.last_layer.objective` serves as it is. A task's weights phi are one vector, (B, 1, P) for B tasks, that
starts at theta; f is the network; and R ties phi to theta, by early stopping (MAML) or by l2/2 |phi - theta|^2 (iMAML,
Meta-MinibatchProx):

    mean over tasks of  outer_loss(f(query; phi*), labels)  with  phi* = argmin_phi  loss(f(support; phi), labels) + R
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kshot.theory.last_layer import Scores


def network_scores(network: nn.Module) -> Scores:
    """f: weights (B, 1, P), in the order of ``network.parameters()``, and images (B, M, ...) to scores (B, M, N)."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}

    def scores(weights: Tensor, images: Tensor) -> Tensor:
        outputs = []
        for vector, task in zip(weights[:, 0], images):
            parts = vector.split([shape.numel() for shape in shapes.values()])
            named = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts)}
            outputs.append(functional_call(network, named, (task,)))
        return torch.stack(outputs)

    return scores


def initialization(network: nn.Module, tasks: int) -> Tensor:
    """theta, the network's weights, as the starting point (B, 1, P) of B tasks; differentiable."""
    return torch.cat([parameter.flatten() for parameter in network.parameters()]).expand(tasks, 1, -1)


def proximal(strength: float, centre: Tensor) -> Callable[[Tensor], Tensor]:
    """R = strength/2 * |phi - theta|^2, for theta = `centre` (B, 1, P)."""
    return lambda weights: strength / 2 * (weights - centre).square().sum((-2, -1))
