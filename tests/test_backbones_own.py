"""Networks of any origin as backbones: what `kshot.backbone` makes of them, and what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from gradient_toys import draw_tasks
from torch import Tensor, nn
from training_toys import toy_data_16, toy_train

import kshot
from kshot.backbones import Backbone, BatchNorm2d, Conv4, batch_of_tasks
from kshot.errors import ConfigError
from kshot.learners import MAML, TADAM, MatchingNet, ProtoNet
from kshot.runs import Run
from kshot.testing import check_backbone


def network(in_channels: int, **normalisation: bool) -> nn.Sequential:
    """What somebody would write: torch's own layers, maps at the end."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 5, 3, padding=1), nn.BatchNorm2d(5, **normalisation), nn.ReLU(), nn.Conv2d(5, 4, 3)
    )


class Recurrent(nn.Module):
    """The last output of an LSTM over the rows of an image, for which torch.func.vmap has no rule."""

    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(in_channels * image_size, 6, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.recurrent(images.transpose(1, 2).flatten(2))[0][:, -1]


MODULES = {
    "torch's BatchNorm": lambda channels, size: network(channels),
    "without running statistics": lambda channels, size: network(channels, track_running_stats=False),
    "InstanceNorm": lambda channels, size: nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Softplus()
    ),
    "lazy layers and dropout": lambda channels, size: nn.Sequential(
        nn.Flatten(), nn.LazyLinear(9), nn.LazyBatchNorm1d(), nn.Dropout(0.3), nn.ReLU(), nn.LazyLinear(7)
    ),
    "BatchNorm3d": lambda channels, size: nn.Sequential(
        nn.Unflatten(1, (channels, 1)), nn.Conv3d(channels, 4, (1, 3, 3)), nn.BatchNorm3d(4), nn.ReLU()
    ),
    "an LSTM": Recurrent,
    "spectral norm": lambda channels, size: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(channels, 4, 3)), nn.ReLU()
    ),
}


@pytest.mark.parametrize("which", MODULES)
def test_a_module_keeps_the_contract_of_backbones(which: str) -> None:
    def make(in_channels: int, image_size: int) -> Backbone:
        return kshot.backbone(MODULES[which](in_channels, image_size), in_channels=in_channels, image_size=image_size)

    if which == "spectral norm":  # each training pass changes its weights, and a loop makes more passes
        make(3, 8)
    else:
        check_backbone(make, image_size=8)


def test_batch_norm_keeps_its_weights_and_tasks_apart() -> None:
    torch.manual_seed(0)
    given = network(3)
    nn.init.normal_(given[1].weight)
    given[1].running_mean.normal_()
    given[1].weight.requires_grad_(False)
    before, reference = list(given.parameters()), copy.deepcopy(given)
    made = kshot.backbone(given, in_channels=3, image_size=8)
    assert isinstance(given[1], BatchNorm2d)
    assert all(ours is theirs for ours, theirs in zip(given.parameters(), before, strict=True))
    assert not given[1].weight.requires_grad
    assert made.training
    assert torch.equal(given[1].running_mean, reference[1].running_mean), (
        "and the passes that look at it leave no trace"
    )
    images = torch.randn(6, 3, 8, 8)
    torch.testing.assert_close(made.eval()(images), reference.eval()(images).mean((2, 3)))
    made.train(), reference.train()
    with batch_of_tasks(2):
        together = made(images)
    torch.testing.assert_close(together, torch.cat([reference(part).mean((2, 3)) for part in images.split(3)]))


def test_a_layer_in_two_places_stays_one() -> None:
    shared = nn.BatchNorm2d(3)
    given = nn.Sequential(nn.Conv2d(3, 3, 3), shared, nn.Conv2d(3, 3, 3), shared)
    shared.eval()
    kshot.backbone(given, in_channels=3, image_size=8)
    assert given[1] is given[3]
    assert isinstance(given[1], BatchNorm2d)
    assert not given[1].training
    assert given.training


def test_statistics_of_maml_depend_on_what_they_should() -> None:
    """With torch's own BatchNorm, transductive and inductive scores would be those of running statistics."""
    torch.manual_seed(0)
    tasks = draw_tasks(1)
    size = tasks.query.shape[-1]
    learner = MAML(kshot.backbone(network(1), in_channels=1, image_size=size), ways=3, inner_steps=1).double().eval()
    others = tasks.query.clone()
    others[:, 1:] = 3 * others[:, 1:] + 1
    changed = replace(tasks, query=others)
    for statistics, depends in (("transductive", True), ("inductive", False)):
        learner.statistics_at_test = statistics
        first, second = (learner.scores(each)[:, 0] for each in (tasks, changed))
        assert bool((first - second).abs().max() > 1e-3) == depends


class Attention(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        return torch.softmax(rows @ rows.mT, 1) @ rows


class CentredInTraining(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) - images.flatten(1).mean(0) if self.training else images.flatten(1)


class AlwaysDropping(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(images.flatten(1), 0.5, training=True)


class Pair(nn.Module):
    def forward(self, images: Tensor) -> Any:
        return images.flatten(1), None


class Custom(nn.modules.batchnorm._BatchNorm):
    def _check_input_dim(self, input: Tensor) -> None:
        pass


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Attention(), "in evaluation mode the features that Attention gives .* change with the other images"),
        (CentredInTraining(), "in training mode the features that CentredInTraining gives .* other tasks"),
        (AlwaysDropping(), "AlwaysDropping gives other features for the same images in a second pass"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)), "normalises batches by SyncBatchNorm"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), Custom(4)), "normalises batches by Custom"),
        (Pair(), "Pair returns a tuple instead of a tensor of features"),
        (nn.Flatten(2), r"Flatten gives torch.float32 \(6, 3, 64\) .* add a layer that averages or flattens, such as"),
        (nn.Flatten(0), r"Flatten gives torch.float32 \(1152,\)"),
        (nn.Conv2d(1, 4, 3), "Conv2d cannot take images of 3 x 8 x 8 .* give the in_channels and the image_size"),
        (Conv4(2, image_size=16), "Conv4 is a backbone already"),
        ("conv4", "'conv4' is no torch.nn.Module"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(module: Any, message: str) -> None:
    before = copy.deepcopy(module)
    with pytest.raises(ConfigError, match=message):
        kshot.backbone(module, in_channels=3, image_size=8)
    if isinstance(module, nn.Module):
        assert [type(layer) for layer in module.modules()] == [type(layer) for layer in before.modules()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "image_size is missing"),
        ({"image_size": 0}, "image_size is 0, but must be positive"),
        ({"kind": "vectors", "image_size": 5}, "vectors have none: in_channels is their length"),
        ({"kind": "series", "image_size": (1, 5)}, r"image_size is \(1, 5\); give one number"),
        ({"kind": "serie", "image_size": 5}, "kind is 'serie'; .* \\(did you mean 'series'\\?\\)"),
    ],
)
def test_sizes_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kshot.backbone(nn.Flatten(), in_channels=3, **options)


def test_images_of_another_size_are_refused() -> None:
    made = kshot.backbone(network(3), in_channels=3, image_size=8)
    with pytest.raises(ConfigError, match="built for images of shape 3 x 8 x 8, but these are 3 x 16 x 16"):
        made(torch.zeros(2, 3, 16, 16))


def test_vectors_and_series_as_datasets_hold_them() -> None:
    vectors = kshot.backbone(nn.Sequential(nn.Linear(7, 4), nn.BatchNorm1d(4)), in_channels=7, kind="vectors")
    series = kshot.backbone(
        nn.Sequential(nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten()), in_channels=2, image_size=9, kind="series"
    )
    for made, held, plain in ((vectors, (7, 1, 1), (7,)), (series, (2, 1, 9), (2, 9))):
        made.eval()
        values = torch.randn(4, *plain)
        assert made.input_shape == held
        assert made(values).shape == (4, made.feature_size)
        assert torch.equal(made(values.view(4, *held)), made(values))
    assert (vectors.feature_size, series.feature_size) == (4, 21)


def test_a_learner_shows_its_own_network_by_name() -> None:
    network = kshot.backbone(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), in_channels=1, image_size=8)
    assert "backbone: kshot.backbone(Sequential), 3 features per image" in repr(kshot.ProtoNet(network))


def test_repr_says_what_a_person_asks_first() -> None:
    made = kshot.backbone(network(3), in_channels=3, image_size=8)
    assert repr(made) == "kshot.backbone(Sequential): 3 x 8 x 8 -> 4 features, 334 parameters"
    assert (
        repr(Conv4(32, in_channels=1))
        == "Conv4(width=32, in_channels=1): 1 x 28 x 28 -> 32 features, 28,320 parameters"
    )


@pytest.mark.parametrize(
    "build", [ProtoNet, lambda net: MAML(net, ways=3), MatchingNet, lambda net: TADAM(net, num_classes=4)]
)
def test_learners_name_what_makes_a_backbone(build: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"takes a backbone, but Sequential is .* kshot.backbone\(module, in_channels="
    ):
        build(network(1))
    with pytest.raises(ConfigError, match=r"takes a backbone, but got 'conv4'; give an instance of one of: .*conv4, "):
        build("conv4")


def test_learners_refuse_torchs_batch_norm_within_a_backbone() -> None:
    class ByHand(Backbone):
        feature_size = 4

        def __init__(self) -> None:
            super().__init__()
            self.layers = network(1)

    with pytest.raises(ConfigError, match=r"the layer layers.1 of the backbone ByHand is torch's BatchNorm2d"):
        ProtoNet(ByHand())


def test_a_run_with_a_module_is_loaded_by_giving_the_learner(tmp_path: Path) -> None:
    def learner() -> ProtoNet:
        return ProtoNet(kshot.backbone(network(1), in_channels=1, image_size=16))

    trained = learner()
    toy_train(trained, toy_data_16(), run=tmp_path, max_epochs=1)
    described = yaml.safe_load((tmp_path / "config.yaml").read_text())["backbone"]
    assert described == {"unregistered": "Sequential"}
    with pytest.raises(ConfigError, match=r"Run\(path\).load\(learner=...\)"):
        Run(tmp_path).load()
    loaded = Run(tmp_path).load(checkpoint="last", learner=learner())
    for (name, ours), theirs in zip(loaded.state_dict().items(), trained.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
