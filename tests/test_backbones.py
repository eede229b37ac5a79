"""The networks: published parameter counts, feature sizes, an independent ResNet-12, the options and torch.compile."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from kshot.backbones import MLP, Conv4, R2D2Network, ResNet12, WideResNet, backbones, batch_of_tasks
from kshot.backbones.bottleneck import BottleneckBlock, BottleneckResNet50
from kshot.backbones.wide_resnet import PreActivatedBlock
from kshot.errors import ConfigError
from kshot.testing import check_backbone

OPTIONS = {name: cls.builds_small for name, cls in backbones.items() if name != "timm"}
LARGE = {"wrn-28-10"}  # whatever its options


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [
        ("resnet12", {}, 12_424_320),
        ("resnet12", {"widths": (64, 128, 256, 512)}, 7_996_800),
        ("seresnet12", {}, 12_696_648),
        ("bottleneck-resnet50", {}, 25_557_032 - 1000 * 2049),
        ("wrn-28-10", {}, 36_479_194 - 10 * 641),
        ("wrn-28-10", {"variant": "tian"}, 36_479_194 - 10 * 641 + 10_096),
        ("conv4", {}, 113_088),
        ("conv4", {"width": 32}, 28_896),
        ("conv4", {"width": 40, "blocks": 7}, 88_320),
        ("mlp", {"in_channels": 1, "image_size": 1}, 2 * 40 + 40 * 41),
    ],
)
def test_parameter_counts_as_published(name, options, published):
    with torch.device("meta"):
        assert parameters(backbones[name](**options)) == published


@pytest.mark.parametrize(
    ("name", "blocks"), [("resnet18", (1, 1, 2, 2)), ("resnet24", 4 * (2,)), ("resnet50", (3, 4, 6, 3))]
)
def test_deeper_resnets_add_identity_blocks(name, blocks):
    identity = [3 * (9 * width + 2) * width for width in (64, 160, 320, 640)]
    expected = 12_424_320 + sum((count - 1) * size for count, size in zip(blocks, identity))
    with torch.device("meta"):
        assert parameters(backbones[name]()) == expected


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - LARGE))
@pytest.mark.parametrize("image_size", [28, 32, 84])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_feature_size(name, image_size, in_channels):
    network = backbones[name](in_channels=in_channels, image_size=image_size, **OPTIONS[name])
    features = network(torch.randn(2, in_channels, image_size, image_size))
    assert features.shape == (2, network.feature_size)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in OPTIONS]
)
def test_every_backbone_keeps_the_contract(name):
    check_backbone(backbones[name], **OPTIONS[name])


class Broken(Conv4):
    """Breaks one promise of the contract at a time."""

    def __init__(self, *, fault: str, in_channels: int, image_size: int) -> None:
        super().__init__(4, in_channels=in_channels, image_size=image_size)
        self.fault = fault
        self.register_buffer("passes", torch.zeros(()), persistent=False)
        if fault == "feature_size":
            self.feature_size += 1
        if fault == "input_shape":
            self.input_shape = (in_channels, image_size, image_size + 1)
        if fault == "torch's BatchNorm":
            self.blocks[0][1] = torch.nn.BatchNorm2d(4)

    def forward(self, images):
        features = super().forward(images)
        if self.fault == "buffer" and self.training:
            self.passes += 1
        if self.fault == "buffer":
            return features * (1 + self.passes)
        if self.fault == "mixing":
            return features - features.mean(0)
        if self.fault == "detached":
            return features + (features.square() - features.square().detach())
        return features.float() if self.fault == "dtype" else features

    def __repr__(self):
        return "Broken" if self.fault == "repr" else super().__repr__()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("feature_size", "feature_size says"),
        ("input_shape", "input_shape is"),
        ("torch's BatchNorm", "training mode .* other tasks"),
        ("buffer", "state_dict does not hold all"),
        ("mixing", "in evaluation mode .* other images"),
        ("detached", "derivatives of the second order are wrong"),
        ("dtype", "features of torch.float64 images are torch.float32"),
        ("repr", "repr does not say the number of features"),
    ],
)
def test_the_contract_finds_what_breaks_it(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_backbone(Broken, fault=fault)


def test_feature_size_of_the_wide_resnet():
    network = WideResNet(in_channels=1, image_size=28).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 28, 28)).shape == (1, network.feature_size) == (1, 640)


def test_feature_sizes_of_the_papers():
    with torch.device("meta"):
        assert [Conv4(image_size=size).feature_size for size in (28, 32, 84)] == [64, 256, 1600]
        assert Conv4(32, image_size=84).feature_size == 800
        assert Conv4(32, pooling="mean").feature_size == 32
        assert [Conv4(40, blocks=7, image_size=size).feature_size for size in (28, 32, 84)] == [40, 160, 1000]
        assert [ResNet12(image_size=size, pooling="none").feature_size for size in (32, 84)] == [2560, 16_000]
        assert ResNet12().feature_size == 640
        assert [R2D2Network(image_size=size).feature_size for size in (32, 84)] == [8064, 72_576]
        assert [R2D2Network(image_size=size, overlapping=False).feature_size for size in (32, 84)] == [8192, 51_200]


def test_conv4_with_further_blocks_against_its_definition():
    torch.manual_seed(0)
    network = Conv4(3, blocks=6, in_channels=2, image_size=32).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    images = torch.randn(4, 2, 32, 32, dtype=torch.float64)
    weights, maps = iter(network.parameters()), images
    for block, (kernel, bias, scale, shift) in enumerate(zip(*[weights] * 4)):
        maps = functional.conv2d(maps, kernel, bias, padding=1)
        maps = functional.batch_norm(maps, None, None, scale, shift, training=True).relu()
        maps = functional.max_pool2d(maps, 2) if block < 4 else maps
    assert block == 5
    torch.testing.assert_close(network(images), maps.flatten(1), rtol=1e-10, atol=1e-10)


def test_resnet12_against_its_definition():
    torch.manual_seed(0)
    network = ResNet12(widths=(3, 4, 5, 6), in_channels=2, image_size=32, drop_rate=0.0).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    images = torch.randn(4, 2, 32, 32, dtype=torch.float64)
    # a block's weights in their order: three times convolution, scale and shift, then those of the shortcut
    weights = list(network.parameters())
    maps = images
    for block in range(4):
        pieces = iter(zip(*[iter(weights[12 * block :][:12])] * 3))

        def convolve_and_normalise(maps, kernel, scale, shift):
            maps = functional.conv2d(maps, kernel, padding=kernel.shape[-1] // 2)
            centred = maps - maps.mean((0, 2, 3), keepdim=True)
            normal = centred / (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
            return normal * scale[:, None, None] + shift[:, None, None]

        out = functional.leaky_relu(convolve_and_normalise(maps, *next(pieces)), 0.1)
        out = functional.leaky_relu(convolve_and_normalise(out, *next(pieces)), 0.1)
        out = convolve_and_normalise(out, *next(pieces)) + convolve_and_normalise(maps, *next(pieces))
        maps = functional.max_pool2d(functional.leaky_relu(out, 0.1), 2)
    torch.testing.assert_close(network(images), maps.mean((2, 3)), rtol=1e-10, atol=1e-10)


def test_squeeze_and_excitation_against_its_definition():
    torch.manual_seed(0)
    network = backbones["seresnet12"](widths=(8, 8, 8, 12), in_channels=2, image_size=16, drop_rate=0.0).double()
    maps, inputs = network.blocks[0].convolutions[:-1], torch.randn(4, 2, 16, 16, dtype=torch.float64)
    expected, (squeeze, _, excite, _) = maps(inputs), network.blocks[0].convolutions[-1].weights
    weights = 1 / (
        1 + (-(expected.mean((2, 3)) @ squeeze.weight.T + squeeze.bias).relu() @ excite.weight.T - excite.bias).exp()
    )
    assert squeeze.weight.shape == (2, 8)
    torch.testing.assert_close(network.blocks[0].convolutions(inputs), expected * weights[:, :, None, None])


@pytest.mark.parametrize(("inputs", "stride"), [(16, 1), (6, 1), (16, 2)])
def test_the_bottleneck_block_against_its_definition(inputs, stride):
    torch.manual_seed(0)
    block, maps = BottleneckBlock(inputs, 4, stride=stride).double(), torch.randn(4, inputs, 8, 8, dtype=torch.float64)
    reduce, middle, expand = (layer.weight for layer in block.convolutions[::3])

    def normal(maps):
        return functional.batch_norm(maps, None, None, training=True)

    out = normal(functional.conv2d(maps, reduce)).relu()
    out = normal(functional.conv2d(out, middle, stride=stride, padding=1)).relu()
    shortcut = (
        maps
        if (inputs, stride) == (16, 1)
        else normal(functional.conv2d(maps, block.shortcut[0].weight, stride=stride))
    )
    expected = (normal(functional.conv2d(out, expand)) + shortcut).relu()
    torch.testing.assert_close(block(maps), expected, rtol=1e-9, atol=1e-9)


def test_the_stem_of_the_bottleneck_network_leaves_nine_places_of_84_pixels():
    network = backbones["bottleneck-resnet50"](width=2).eval()
    maps = network.stem(torch.randn(1, 3, 84, 84))
    assert maps.shape == (1, 2, 21, 21)
    assert network.blocks(maps).shape == (1, 64, 3, 3)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_released_block_of_the_wide_resnet_against_its_definition(stride):
    torch.manual_seed(0)
    block = PreActivatedBlock(3, 5, 0.0, stride=stride, variant="tian").double()
    maps = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    (first, second), shortcut = block.convolutions[::4], block.shortcut
    out = functional.conv2d(
        functional.batch_norm(maps, None, None, training=True).relu(), first.weight, first.bias, padding=1
    )
    out = functional.batch_norm(out, None, None, training=True).relu()
    out = functional.conv2d(out, second.weight, second.bias, stride=stride, padding=1)
    expected = out + functional.conv2d(maps, shortcut.weight, shortcut.bias, stride=stride)
    torch.testing.assert_close(block(maps), expected, rtol=1e-9, atol=1e-9)


def test_resnet_convolutions_start_from_he():
    torch.manual_seed(0)
    weight = ResNet12().blocks[3].convolutions[0].weight
    assert weight.std().item() == pytest.approx((2 / (640 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - LARGE))
def test_channels_last_changes_nothing(name):
    torch.manual_seed(0)
    network = backbones[name](image_size=16, **OPTIONS[name]).double()
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    images, keys = torch.randn(6, 3, 16, 16).double(), np.arange(2, dtype=np.uint64)
    with batch_of_tasks(2, keys):
        expected = network(images)
    with batch_of_tasks(2, keys):
        features = other(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Conv4(image_size=8), "image_size is 8, but this backbone halves the image 4 times"),
        (lambda: Conv4(pooling="max"), "pooling is 'max'; choose one of: flatten, mean"),
        (lambda: ResNet12(pooling="flatten"), "pooling is 'flatten'; choose one of: mean, none"),
        (lambda: ResNet12(drop_rate=1.0), "drop_rate is 1.0"),
        (lambda: ResNet12(drop_block_size=0), "drop_block_size is 0"),
        (lambda: ResNet12(ramp_tasks=0), "ramp_tasks is 0"),
        (lambda: R2D2Network(drop_rates=(0.1, -0.4)), "drop_rates is -0.4"),
        (lambda: Conv4(width=0), "width is 0"),
        (lambda: Conv4(blocks=3), "blocks is 3, but must be at least 4"),
        (lambda: BottleneckResNet50(blocks=(1, 0, 1, 1)), "blocks is 0"),
        (lambda: WideResNet(variant="wide"), "variant is 'wide'; choose one of: zagoruyko, tian"),
        (lambda: MLP(widths=()), "widths is empty"),
        (lambda: MLP(widths=(4, 0)), "widths is 0"),
        (lambda: MLP(image_size=0), "image_size is 0"),
    ],
)
def test_refuses_options_by_name(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_compiled_network_notices_how_many_tasks_there_are():
    network = Conv4(2, in_channels=1, image_size=16)
    compiled = torch.compile(copy.deepcopy(network), backend="eager")
    images = torch.randn(12, 1, 16, 16)
    compiled(images)  # outside of any context, where the count was not looked up before
    for count in (3, 2, 6):
        with batch_of_tasks(count):
            torch.testing.assert_close(compiled(images), network(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_compiled_equals_eager(name):
    torch.manual_seed(0)
    network = backbones[name](image_size=16, **OPTIONS[name])
    compiled_network = copy.deepcopy(network)
    compiled = torch.compile(compiled_network)
    for count in (3, 2):  # a second number of tasks has torch.compile treat shapes as variables
        images, keys = torch.randn(count * 4, 3, 16, 16), np.arange(count, dtype=np.uint64)
        with batch_of_tasks(count, keys):
            expected = network(images)
        with batch_of_tasks(count, keys):
            features = compiled(images)
        torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
        features.sin().sum().backward()
        expected.sin().sum().backward()
        for ours, theirs in zip(compiled_network.parameters(), network.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-2, atol=1e-2)
    for ours, theirs in zip(compiled_network.buffers(), network.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
