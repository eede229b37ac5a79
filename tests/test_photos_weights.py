"""Backbones of other weights: their own size, crop, interpolation, mean and deviation; files that do not fit."""

from __future__ import annotations

import copy
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kshot.backbones import EfficientNetLite0
from kshot.data.images import InputForm, read_each
from kshot.errors import ConfigError
from kshot.photos import FewShotClassifier, PretrainedNetwork

CONFIG = {"input_size": (3, 20, 20), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8}


class Model(nn.Module):
    """A network as timm makes them, whose classifier `fc` is left out for num_classes=0."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, classes) if classes else nn.Identity()
        self.norm = nn.BatchNorm2d(4)
        self.pretrained_cfg = {"classifier": "fc"}

    def forward(self, images):
        return self.fc(self.norm(self.stem(images)).mean((2, 3)))


class FakeTimm(SimpleNamespace):
    """The three functions of timm that are called."""

    def __init__(self, **known):
        super().__init__(known=CONFIG | {"interpolation": "bicubic"} | known)
        self.published = Model(7)
        self.data = SimpleNamespace(resolve_data_config=lambda _, model: self.known)

    def is_model(self, name):
        return name == "tiny.tag"

    def create_model(self, name, *, pretrained, num_classes):
        if pretrained == "never":
            raise OSError
        model = Model(num_classes)
        if pretrained:
            model.load_state_dict({k: v for k, v in self.published.state_dict().items() if not k.startswith("fc.")})
        return model


@pytest.fixture
def timm(monkeypatch):
    torch.manual_seed(0)
    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


@torch.no_grad()
def test_a_model_of_timm_has_its_own_form(timm):
    network = PretrainedNetwork("timm:tiny.tag")
    assert network.form == InputForm(20, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize=25, interpolation="bicubic")
    images = torch.randn(3, 3, 20, 20)
    model = copy.deepcopy(timm.published).eval()
    model.fc = nn.Identity()
    torch.testing.assert_close(network(images), nn.functional.normalize(model(images), dim=1))
    assert network.trained_on == "timm:tiny.tag, with timm's weights"
    with pytest.raises(ConfigError, match="timm has no model 'nonesuch'"):
        PretrainedNetwork("timm:nonesuch")


@pytest.mark.parametrize("kind", ["safetensors", "pt", "nested"])
def test_weights_of_timm_from_a_file(timm, tmp_path, kind):
    own = Model(7).state_dict()
    path = tmp_path / f"own.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(own, path)
    else:
        torch.save({"state_dict": own} if kind == "nested" else own, path)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.9, 0.9, 0.9], "crop_pct": 0.5}}))
    network = PretrainedNetwork("timm:tiny.tag", weights=path)
    assert (network.form.mean, network.form.resize, network.form.std) == ((0.9,) * 3, 40, (0.4, 0.5, 0.6))
    assert torch.equal(network.tensors["stem.weight"], own["stem.weight"])
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), np.uint8)
    classifier = FewShotClassifier(network).fit(images, [0, 0, 0, 1, 1, 1])
    saved = classifier.save(tmp_path / "x.kshot")
    path.unlink()
    again = FewShotClassifier.load(saved)
    assert again.backbone.form == network.form
    np.testing.assert_allclose(again.predict_proba(images), classifier.predict_proba(images), atol=1e-6)


def test_files_that_do_not_fit_are_refused(timm, tmp_path):
    save_file({"stem.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other\.safetensors are of another network: they differ in stem\.bias"):
        PretrainedNetwork("timm:tiny.tag", weights=tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="there are no weights"):
        PretrainedNetwork("timm:tiny.tag", weights=tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, message in (("bad.pt", "cannot be read as weights"), ("list.pt", "holds no state dict")):
        with pytest.raises(ConfigError, match=message):
            PretrainedNetwork("timm:tiny.tag", weights=tmp_path / name)
    save_file(Model(7).state_dict(), tmp_path / "own.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        PretrainedNetwork("timm:tiny.tag", weights=tmp_path / "own.safetensors")
    timm.create_model = lambda *_, **__: (_ for _ in ()).throw(OSError("no route to host"))
    with pytest.raises(ConfigError, match=r"cannot be had \(no route to host\); download them where"):
        PretrainedNetwork("timm:tiny.tag")


def test_weights_for_a_backbone_of_kshot(tmp_path):
    torch.manual_seed(0)
    own = EfficientNetLite0().state_dict()
    torch.save(own | {"_fc.weight": torch.zeros(3, 1280), "_fc.bias": torch.zeros(3)}, tmp_path / "own.pth")
    network = PretrainedNetwork("efficientnet-lite0", weights=tmp_path / "own.pth")
    assert all(torch.equal(network.tensors[name], tensor) for name, tensor in own.items())
    assert network.trained_on.endswith("own.pth")


def test_interpolation_is_that_of_the_weights(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for interpolation, filter_ in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        form = InputForm(24, 3 * (0.5,), 3 * (0.5,), resize=30, interpolation=interpolation)
        expected = Image.fromarray(pixels).resize((24, 24), filter_, (16, 6, 64, 54))
        np.testing.assert_array_equal(read_each([tmp_path / "a.png"], form)[0], np.asarray(expected))
