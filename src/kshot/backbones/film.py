"""Feature-wise linear modulation, FiLM (Perez et al. 2018): every task scales and shifts the channels of a network.

The modulation is given as an argument and holds within a context; the network keeps its layers and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from kshot.backbones.normalization import BatchNorm2d
from kshot.backbones.registry import is_compiled
from kshot.errors import ConfigError

# the scales and shifts of a layer by its name, (B, C) each, one row per task
Modulations = Mapping[str, tuple[Tensor, Tensor]]


def modulated_layers(network: nn.Module) -> dict[str, int]:
    """Name and channels of the layers of a network that FiLM is applied to, in the order in which they were built.

    These are the normalisations that follow (or, in a pre-activated network, precede) the convolutions, but not those
    of shortcuts; or, in a network without normalisation, its linear layers.

    Raises
    ------
    ConfigError
        The network has no such layers.
    """
    layers = {
        name: layer.num_features
        for name, layer in network.named_modules()
        if isinstance(layer, BatchNorm2d) and "shortcut" not in name.split(".")
    }
    layers = layers or {
        name: layer.out_features for name, layer in network.named_modules() if isinstance(layer, nn.Linear)
    }
    if not layers:
        raise ConfigError(f"{type(network).__name__} has no layer that FiLM could modulate; choose conv4")
    return layers


@contextmanager
def modulated(network: nn.Module, modulations: Modulations) -> Iterator[None]:
    """Within this context the output h of each named layer is ``scale * h + shift`` (Perez et al. eq. 2).

    Parameters
    ----------
    network
        Called as usual, or through `torch.func.functional_call`. Its leading axis, (B*M, ...), holds B tasks of M
        images each, as within `batch_of_tasks`.
    modulations
        For each modulated layer, by its name within `network`, scale and shift (B, C), or (C,) for all images.
        Gradients flow back to them. Under `torch.func.vmap` the mapped function enters the context, as in
        `forward_per_task`.

    Raises
    ------
    ConfigError
        The network was compiled; or, when it is called, the outputs of a linear layer are no vectors.
    AttributeError
        No layer has one of the names.
    ValueError
        When the network is called: numbers of tasks or channels do not fit.
    """
    # a compiled network does not look again which hooks its layers have, and would leave the modulation out
    if modulations and is_compiled(network):
        raise ConfigError(
            "the layers of a compiled network cannot be modulated by the task (FiLM); leave out compile=true"
        )
    with ExitStack() as hooks:
        for name, (scale, shift) in modulations.items():
            handle = network.get_submodule(name).register_forward_hook(_modulation(name, scale, shift))
            hooks.callback(handle.remove)
        yield


def _modulation(name: str, scale: Tensor, shift: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def modulate(layer: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> Tensor:
        if isinstance(layer, nn.Linear) and maps.dim() > 2:  # as of a transformer, whose channels come last
            raise ConfigError(
                f"FiLM modulates linear layers that give vectors, but layer {name} gives {tuple(maps.shape)}; choose a "
                f"backbone of convolutions, such as conv4"
            )
        tasks = 1 if scale.dim() == 1 else len(scale)
        if len(maps) % tasks or scale.shape[-1] != maps.shape[1] or shift.shape != scale.shape:
            raise ValueError(
                f"layer {name} cannot be modulated: its output is {tuple(maps.shape)}, scale and shift are "
                f"{tuple(scale.shape)} and {tuple(shift.shape)}, but must be (tasks, channels) for tasks of equal size"
            )
        rows = (tasks, 1, maps.shape[1], *[1] * (maps.dim() - 2))
        scales, shifts = (part.to(maps.dtype).view(rows) for part in (scale, shift))
        return torch.addcmul(shifts, maps.unflatten(0, (tasks, -1)), scales).flatten(0, 1)

    return modulate
