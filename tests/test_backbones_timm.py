"""The timm adapter: its own logic with a stand-in for timm, and timm itself where it is installed."""

import copy
import importlib
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kshot.backbones import BatchNorm2d, Timm, batch_of_tasks
from kshot.backbones.timm_adapter import _torchvision_advice
from kshot.errors import ConfigError
from kshot.runs.config import build_learner, describe_learner


class BatchNormAct2d(nn.BatchNorm2d):
    """As timm's: normalise, drop, activate."""

    def __init__(self, width):
        super().__init__(width, eps=1e-3)
        self.drop, self.act = nn.Identity(), nn.SiLU()

    def forward(self, images):
        return self.act(self.drop(super().forward(images)))


class FakeTimm(SimpleNamespace):
    """The four functions of timm that the adapter calls, and what it passed to create_model."""

    def __init__(self, normalisation):
        super().__init__(calls=[], normalisation=normalisation)

    def is_model(self, name):
        return name != "nonesuch"

    def get_pretrained_cfg(self, name):
        return SimpleNamespace(fixed_input_size=name.startswith("vit"))

    def create_model(self, name, *, in_chans, **options):
        self.calls.append({"in_chans": in_chans, **options})
        stem = nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.BatchNorm2d(4))
        body = nn.Sequential(nn.Conv2d(4, 6, 3), self.normalisation(6))
        self.made = nn.Sequential(stem, body, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        for weight in self.made.parameters():
            nn.init.normal_(weight)
        return copy.deepcopy(self.made)


@pytest.fixture
def fake_timm(monkeypatch):
    def install(normalisation=BatchNormAct2d):
        fake = FakeTimm(normalisation)
        monkeypatch.setitem(sys.modules, "timm", fake)
        return fake

    return install


def test_builds_for_the_images_without_a_classifier(fake_timm):
    fake = fake_timm()
    assert Timm("resnet18", in_channels=1, image_size=20).feature_size == 24
    Timm("vit_tiny", image_size=40, pretrained=True)
    assert fake.calls == [
        {"in_chans": 1, "pretrained": False, "num_classes": 0},
        {"in_chans": 3, "pretrained": True, "num_classes": 0, "img_size": 40},
    ]


def test_pretrained_weights_are_not_fetched_where_a_checkpoint_follows(fake_timm):
    fake = fake_timm()
    backbone = {"name": "timm", "model": "resnet18", "in_channels": 3, "image_size": 20, "pretrained": True}
    config = {"learner": {"name": "protonet"}, "backbone": backbone}
    learner = build_learner(config, download=False)
    assert not fake.calls[-1]["pretrained"]
    assert describe_learner(learner)["backbone"] == backbone
    build_learner(config)
    assert fake.calls[-1]["pretrained"]


def test_replaces_batch_norm_under_the_same_names(fake_timm):
    torch.manual_seed(0)
    fake = fake_timm()
    backbone = Timm("resnet18", image_size=20)
    layers = [layer for layer in backbone.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [isinstance(layer, BatchNorm2d) for layer in layers] == [True, True]
    assert [layer.eps for layer in layers] == [1e-5, 1e-3]
    assert backbone.training
    assert all(layer.training for layer in layers)
    assert list(backbone.network.state_dict()) == list(fake.made.state_dict())
    images = torch.randn(8, 3, 20, 20)
    with batch_of_tasks(2):
        together = backbone(images)
    torch.testing.assert_close(together, torch.cat([fake.made(part) for part in images.split(4)]))
    torch.testing.assert_close(backbone.eval()(images[:1]).shape, torch.Size([1, 24]))


def test_refuses_layers_that_would_mix_tasks(fake_timm):
    fake_timm(nn.SyncBatchNorm)
    with pytest.raises(ConfigError, match=r"normalises batches by SyncBatchNorm \(1.1\), which would mix tasks"):
        Timm("resnet18")


def test_refuses_unknown_models_and_images_too_small(fake_timm):
    fake_timm()
    with pytest.raises(ConfigError, match="timm has no model 'nonesuch'"):
        Timm("nonesuch")
    with pytest.raises(ConfigError, match="'resnet18' cannot take images of 3 pixels"):
        Timm("resnet18", image_size=3)


def test_says_how_to_install_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install kshot\[timm\]"):
        Timm("resnet18")


@pytest.mark.parametrize(
    ("torch_version", "torchvision_version", "expected"),
    [
        ("2.13.0+cpu", "0.22.1", r"torchvision==0.28.*' --index-url https://download.pytorch.org/whl/cpu"),
        ("2.6.0+cu124", "0.20.0+cpu", r"torchvision==0.21.*' --index-url https://download.pytorch.org/whl/cu124"),
        ("2.7.1", "0.21.0", "torchvision==0.22.*'"),
        ("2.7.1", None, "pip install --no-deps 'torchvision==0.22.*'"),
    ],
)
def test_names_the_torchvision_that_fits(torch_version, torchvision_version, expected):
    advice = _torchvision_advice(torch_version, torchvision_version)
    assert advice.endswith(expected)
    assert torchvision_version is None or torchvision_version in advice


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operator torchvision::nms does not exist"),
        AttributeError("partially initialized module 'torchvision' has no attribute 'extension'"),
        ImportError("libcudart.so.12: cannot open shared object file"),
        OSError("undefined symbol: _ZN5torch3jit"),
    ],
)
def test_a_torchvision_for_another_torch_is_named(error, monkeypatch):
    def import_module(name):
        raise error

    monkeypatch.setattr("kshot.backbones.timm_adapter._version_of", {"torchvision": "0.1.2"}.get)
    monkeypatch.setattr("kshot.backbones.timm_adapter.importlib.import_module", import_module)
    with pytest.raises(ConfigError, match=r"timm cannot be imported .*torchvision 0.1.2 was most likely built for"):
        Timm("resnet18")


@pytest.mark.parametrize(
    ("missing", "advice"),
    [
        ("safetensors", r"lacks safetensors: pip install kshot\[timm\]"),
        # not kshot[timm], which would bring the newest torchvision, for another torch
        ("torchvision", r"lacks torchvision; install the one for torch \S+: pip install --no-deps 'torchvision==0"),
    ],
)
def test_a_library_that_timm_lacks_is_named(missing, advice, monkeypatch):
    def import_module(name):
        raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)

    monkeypatch.setattr("kshot.backbones.timm_adapter.importlib.import_module", import_module)
    with pytest.raises(ConfigError, match=f"timm cannot be imported, since it {advice}"):
        Timm("resnet18")


@pytest.mark.parametrize("model", ["resnet10t", "mobilenetv3_small_050", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_timm_itself(model):
    try:
        importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        pytest.skip(f"timm cannot be imported: {error}")
    torch.manual_seed(0)
    together = Timm(model, in_channels=1, image_size=64).double()
    apart = copy.deepcopy(together)
    images = torch.randn(8, 1, 64, 64, dtype=torch.float64)
    with batch_of_tasks(2):
        features = together(images)
    assert features.shape == (8, together.feature_size)
    torch.testing.assert_close(features, torch.cat([apart(part) for part in images.split(4)]), rtol=1e-8, atol=1e-8)
