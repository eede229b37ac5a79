"""FiLM against networks whose normalisation was changed by hand, one task at a time."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones import MLP, Backbone, Conv4, R2D2Network, ResNet12, WideResNet, backbone, batch_of_tasks
from kshot.backbones.film import Modulations, modulated, modulated_layers
from kshot.backbones.task_weights import forward_per_task, shared_weights
from kshot.errors import ConfigError
from kshot.learners import MMAML, TADAM

NETWORKS = {
    "conv4": lambda: Conv4(4, in_channels=1, image_size=16),
    "resnet12": lambda: ResNet12(widths=(2, 3, 2, 3), in_channels=1, image_size=16, drop_rate=0.0),
}


@pytest.fixture(params=sorted(NETWORKS))
def network(request) -> Backbone:
    torch.manual_seed(0)
    return NETWORKS[request.param]().double().train()


def drawn(network: nn.Module, tasks: int) -> dict[str, tuple[Tensor, Tensor]]:
    """A modulation for every layer, (tasks, C), nowhere near the identity."""
    return {
        name: (torch.randn(tasks, channels).double(), torch.randn(tasks, channels).double())
        for name, channels in modulated_layers(network).items()
    }


def of_task(modulations: Modulations, task: int) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (scale[task], shift[task]) for name, (scale, shift) in modulations.items()}


def by_hand(network: nn.Module, own: Modulations) -> nn.Module:
    """The network with scale and shift in the weights of its normalisation: s (w z + b) + t = (s w) z + (s b + t)."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        for name, (scale, shift) in own.items():
            layer = changed.get_submodule(name)
            layer.weight *= scale.view(-1, *[1] * (layer.weight.dim() - 1))
            layer.bias.mul_(scale).add_(shift)
    return changed


@pytest.mark.parametrize("channels_last", [False, True])
def test_tasks_in_one_pass_are_modulated_each_by_its_own(network, channels_last):
    images, modulations = torch.randn(3, 5, 1, 16, 16).double(), drawn(network, 3)
    expected = torch.stack([by_hand(network, of_task(modulations, task))(images[task]) for task in range(3)])
    flat = images.flatten(0, 1).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    with batch_of_tasks(3), modulated(network, modulations):
        torch.testing.assert_close(network(flat).unflatten(0, (3, 5)), expected)


def test_network_is_as_before_after_the_context_and_under_the_identity(network):
    images = torch.randn(4, 1, 16, 16).double()
    expected = network(images)
    ones = {name: (torch.ones(channels), torch.zeros(channels)) for name, channels in modulated_layers(network).items()}
    with modulated(network, ones):
        torch.testing.assert_close(network(images), expected, rtol=0, atol=0)
    with contextlib.suppress(KeyError), modulated(network, drawn(network, 1)):
        assert not torch.allclose(network(images), expected)
        raise KeyError
    torch.testing.assert_close(network(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [1, 2])
def test_networks_with_weights_of_their_own_are_modulated_in_both_strategies(network, parts):
    """Through ordinary kernels and under vmap: values, and gradients of weights and modulations."""
    images, modulations = torch.randn(3, 6, 1, 16, 16).double(), drawn(network, 3)
    leaves = [part.requires_grad_() for pair in modulations.values() for part in pair]
    weights = {
        name: (weight + 0.1 * torch.randn_like(weight)).detach().requires_grad_()
        for name, weight in shared_weights(network, 3).items()
    }
    both = forward_per_task(network, weights, images, parts=parts, modulations=modulations)
    one_by_one = torch.cat(
        [
            forward_per_task(
                network,
                {name: weight[task : task + 1] for name, weight in weights.items()},
                images[task : task + 1],
                parts=parts,
                modulations={
                    name: (scale[task : task + 1], shift[task : task + 1])
                    for name, (scale, shift) in modulations.items()
                },
            )
            for task in range(3)
        ]
    )
    torch.testing.assert_close(both, one_by_one)
    own = copy.deepcopy(network)
    own.load_state_dict({name: weight[1] for name, weight in weights.items()}, strict=False)
    expected = torch.cat([by_hand(own, of_task(modulations, 1))(part) for part in images[1].chunk(parts)])
    torch.testing.assert_close(both[1], expected)
    wanted = [*weights.values(), *leaves]
    direction = torch.randn_like(both)
    for first, second in zip(*(torch.autograd.grad(each, wanted, direction) for each in (both, one_by_one))):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-11)


def test_layers_that_are_modulated():
    assert list(modulated_layers(Conv4(8)).items()) == [(f"blocks.{i}.1", 8) for i in range(4)]
    assert list(modulated_layers(ResNet12(widths=(2, 3, 4, 5))).values()) == [c for c in (2, 3, 4, 5) for _ in range(3)]
    assert len(modulated_layers(R2D2Network())) == 4
    assert len(modulated_layers(WideResNet())) == 25
    assert modulated_layers(MLP((5, 6))) == {"layers.0.0": 5, "layers.1.0": 6}, "no normalisation: linear layers"


def test_vectors_are_modulated():
    network, inputs = MLP((5, 6), in_channels=2, image_size=1).double(), torch.randn(6, 2).double()
    modulations = drawn(network, 2)
    with modulated(network, modulations):
        outputs = network(inputs)
    expected = torch.cat([by_hand(network, of_task(modulations, task))(inputs[3 * task :][:3]) for task in range(2)])
    torch.testing.assert_close(outputs, expected)


def test_modulations_that_do_not_fit_are_refused(network):
    name, channels = next(iter(modulated_layers(network).items()))
    wrong = [(2, channels), (1, channels + 1), (channels + 1,)]
    for shape in wrong:
        with (
            pytest.raises(ValueError, match=f"layer {name} cannot be modulated"),
            modulated(network, {name: (torch.ones(shape), torch.ones(shape))}),
        ):
            network(torch.zeros(3, 1, 16, 16).double())
    with pytest.raises(AttributeError), modulated(network, {"nowhere": (torch.ones(2), torch.ones(2))}):
        pass


@pytest.mark.parametrize(
    "build",
    [
        lambda network: MMAML(network, ways=3),
        lambda network: TADAM(network, num_classes=12),
    ],
)
def test_learners_refuse_a_network_without_layers_to_modulate(build):
    network = backbone(nn.Conv2d(1, 2, 3), in_channels=1, image_size=16)
    with pytest.raises(ConfigError, match="ModuleBackbone has no layer that FiLM could modulate; choose conv4"):
        build(network)


def test_linear_layers_of_token_maps_are_refused():
    network = nn.Sequential(nn.Flatten(2), nn.Linear(16, 16))  # as many tokens as channels: the sizes tell nothing
    with modulated(network, drawn(network, 2)), pytest.raises(ConfigError, match=r"layer 1 gives \(4, 16, 16\)"):
        network.double()(torch.zeros(4, 16, 4, 4).double())


def test_a_compiled_network_is_refused(network):
    network.compile(backend="eager")
    with pytest.raises(ConfigError, match="leave out compile"), modulated(network, drawn(network, 1)):
        pass
    with modulated(network, {}):
        pass
