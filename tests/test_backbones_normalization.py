"""BatchNorm that keeps tasks apart: against a loop over tasks, in values, gradients and running statistics."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from kshot.backbones import BatchNorm2d, Conv4, backbones, batch_of_tasks
from kshot.backbones.normalization import _normalise_batched, _NormaliseSlices

STRATEGIES = {"slices": _NormaliseSlices.apply, "batched": _normalise_batched}
SMALL = {"widths": (3, 4, 5, 6), "drop_rate": 0.0}
NETWORKS = {
    "conv4": {"width": 5},
    "r2d2": {"drop_rates": (0.0, 0.0)},
    "resnet12": SMALL,
    "resnet18": SMALL,
    "resnet24": SMALL,
    "resnet50": SMALL,
    "wrn-28-10": {},
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5), (torch.bfloat16, 1e-2)]
)
def test_layer_equals_loop_over_tasks(memory_format, strategy, dtype, tolerance):
    torch.manual_seed(0)
    count, size = 3, 4
    images = (3 + 2 * torch.randn(count * size, 5, 7, 6)).to(dtype).contiguous(memory_format=memory_format)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias = torch.randn(5, dtype=wide), torch.randn(5, dtype=wide)
    normalised, mean, variance = STRATEGIES[strategy](images, weight, bias, 1e-5, count)
    assert normalised.is_contiguous(memory_format=memory_format)
    assert normalised.dtype == dtype
    for task, part in enumerate(images.split(size)):
        expected = functional.batch_norm(part, None, None, weight, bias, True, eps=1e-5)
        torch.testing.assert_close(normalised[task * size :][:size], expected, rtol=tolerance, atol=tolerance)
        expected_variance, expected_mean = torch.var_mean(part.to(wide), (0, 2, 3))
        torch.testing.assert_close(mean[task], expected_mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(variance[task], expected_variance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("affine", [True, False])
def test_first_and_second_derivatives(strategy, affine):
    torch.manual_seed(0)
    images = torch.randn(6, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    affinity = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else []

    def normalise(images, *affinity):
        return STRATEGIES[strategy](images, *(affinity or (None, None)), 1e-5, 2)[0]

    assert torch.autograd.gradcheck(normalise, (images, *affinity))
    assert torch.autograd.gradgradcheck(normalise, (images, *affinity))


def test_second_derivatives_outside_the_context_and_torch_func():
    """Of a MAML step through our layer, against finite differences; torch.func.grad over vmap gets it wrong."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), BatchNorm2d(3), nn.Softplus(), nn.Conv2d(3, 2, 2), BatchNorm2d(2), nn.Flatten()
    ).double()
    support, query = torch.randn(2, 6, 2, 4, 4, dtype=torch.float64)
    names = [name for name, _ in network.named_parameters()]

    def adapted_loss(*weights):
        loss = torch.func.functional_call(network, dict(zip(names, weights)), support).sin().mean()
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        adapted = [weight - 0.5 * gradient for weight, gradient in zip(weights, gradients)]
        return torch.func.functional_call(network, dict(zip(names, adapted)), query).cos().mean()

    weights = tuple(torch.randn_like(weight).requires_grad_() for weight in network.parameters())
    assert torch.autograd.gradcheck(adapted_loss, weights, atol=1e-7)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_once_towards_the_mean_over_tasks(momentum):
    torch.manual_seed(0)
    layer = BatchNorm2d(3, momentum=momentum).double()
    passes = torch.randn(2, 12, 3, 4, 4, dtype=torch.float64)
    expected_mean, expected_variance = torch.zeros(3).double(), torch.ones(3).double()
    for number, images in enumerate(passes, start=1):
        with batch_of_tasks(4):
            layer(images)
        statistics = [torch.var_mean(part, (0, 2, 3)) for part in images.split(3)]
        share = 1 / number if momentum is None else momentum
        expected_mean += share * (torch.stack([mean for _, mean in statistics]).mean(0) - expected_mean)
        expected_variance += share * (torch.stack([variance for variance, _ in statistics]).mean(0) - expected_variance)
    torch.testing.assert_close(layer.running_mean, expected_mean)
    torch.testing.assert_close(layer.running_var, expected_variance)
    assert layer.num_batches_tracked == 2


def test_native_outside_the_context_with_one_task_when_joint_and_in_evaluation():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 4, 4)
    native, ours = nn.BatchNorm2d(3), BatchNorm2d(3)
    for options in (None, {"count": 1}, {"count": 4, "joint": True}):
        expected = native(images)
        if options is None:
            assert torch.equal(ours(images), expected)
        else:
            with batch_of_tasks(**options):
                assert torch.equal(ours(images), expected)
        assert torch.equal(ours.running_var, native.running_var)
    with batch_of_tasks(4):
        assert torch.equal(ours.eval()(images), native.eval()(images))


def test_contexts_nest_and_end_with_an_error():
    images = torch.randn(8, 3, 4, 4)
    layer = BatchNorm2d(3)
    with batch_of_tasks(4):
        apart = layer(images)
        with batch_of_tasks(2):
            assert not torch.equal(layer(images), apart)
        assert torch.equal(layer(images), apart)
        with pytest.raises(ZeroDivisionError), batch_of_tasks(2):
            raise ZeroDivisionError
        assert torch.equal(layer(images), apart)


@pytest.mark.parametrize(("shape", "count"), [((7, 3, 4, 4), 2), ((4, 3, 1, 1), 4)])
def test_refuses_tasks_of_unequal_size_and_single_values(shape, count):
    with pytest.raises(ValueError, match="at least 2 values per channel"), batch_of_tasks(count):
        BatchNorm2d(3)(torch.randn(shape))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "wrn-28-10" else []) for name in NETWORKS]
)
def test_one_pass_over_tasks_equals_a_pass_for_each(name):
    torch.manual_seed(0)
    count, size = 2, 5
    together = backbones[name](in_channels=1, image_size=16, **NETWORKS[name]).double()
    apart = copy.deepcopy(together)
    images = torch.randn(count * size, 1, 16, 16, dtype=torch.float64)
    with batch_of_tasks(count):
        features = together(images)
    features.sin().sum().backward()

    start = {name: buffer.clone() for name, buffer in apart.named_buffers()}
    ends = []
    for task, part in enumerate(images.split(size)):
        apart.load_state_dict(start, strict=False)
        alone = apart(part)
        torch.testing.assert_close(features[task * size :][:size], alone, rtol=1e-10, atol=1e-10)
        alone.sin().sum().backward()
        ends.append({name: buffer.clone() for name, buffer in apart.named_buffers()})
    for ours, theirs in zip(together.parameters(), apart.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-8)
    for name, buffer in together.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, torch.stack([end[name] for end in ends]).mean(0))


def _joint_pass(rank, folder, images, shares):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=len(shares))
    network = _joint_network()
    with batch_of_tasks(shares[rank], joint=True):
        features = network(images.split([4 * share for share in shares])[rank])
    features.sin().sum().backward()
    gradients = [weight.grad for weight in network.parameters()]
    for gradient in gradients:
        torch.distributed.all_reduce(gradient)
    torch.save((features.detach(), gradients, list(network.buffers())), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _joint_network():
    torch.manual_seed(0)
    return Conv4(3, in_channels=1, image_size=16).double()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this torch has no gloo")
def test_joint_statistics_of_two_processes_equal_those_of_one(tmp_path: Path):
    network = _joint_network()
    images = 5 + torch.randn(12, 1, 16, 16, dtype=torch.float64)
    features = network(images)
    features.sin().sum().backward()
    torch.multiprocessing.spawn(_joint_pass, (str(tmp_path), images, (1, 2)), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([result[0] for result in results]), features, rtol=1e-10, atol=1e-10)
    for _, gradients, buffers in results:
        for ours, theirs in zip(gradients, network.parameters()):
            torch.testing.assert_close(ours, theirs.grad, rtol=1e-8, atol=1e-9)
        for ours, theirs in zip(buffers, network.buffers()):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_own_statistics_have_right_first_and_second_derivatives_in_evaluation(memory_format):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 2, 3, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    layer = BatchNorm2d(3).double().eval()
    affinity = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def normalise(images, weight, bias):
        with batch_of_tasks(1, own_statistics=True):
            return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, images)

    expected = functional.batch_norm(images, None, None, *affinity, True)
    torch.testing.assert_close(normalise(images, *affinity), expected)
    assert torch.autograd.gradcheck(normalise, (images, *affinity))
    assert torch.autograd.gradgradcheck(normalise, (images, *affinity))
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("affine", [True, False])
def test_own_statistics_of_several_tasks_are_those_of_each(traced, affine):
    torch.manual_seed(0)
    images, layer = torch.randn(8, 3, 4, 4), BatchNorm2d(3, affine=affine).eval()
    with batch_of_tasks(2, own_statistics=True, traced=traced):
        apart = layer(images)
    with batch_of_tasks(1, own_statistics=True):
        alone = torch.cat([layer(part) for part in images.split(4)])
    torch.testing.assert_close(apart, alone)
