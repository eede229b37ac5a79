"""Own photographs: unequal classes, probabilities, an honest estimate."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

from kshot.backbones import Conv4
from kshot.cli import main
from kshot.data.dataset import ImageForm
from kshot.errors import CheckpointError, ConfigError, DataError
from kshot.learners import MultiTask
from kshot.photos.classifier import PhotoClassifier, images_at
from kshot.runs.run import Run
from kshot.solvers import LogisticRegression, TuneAll
from kshot.training import train

COUNTS = {"cat": 3, "dog": 5, "owl": 11, "yak": 1}


@pytest.fixture
def photos(tmp_path) -> Path:
    """examples/ with unequal classes and new/ with two images of each, all sizes and modes."""
    generator = np.random.default_rng(0)
    for name, count in COUNTS.items():
        prototype = generator.integers(0, 256, (8, 8, 3))
        for number in range(count + 2):
            noisy = (prototype + generator.normal(0, 15, prototype.shape)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(noisy).resize((30 + number, 30), Image.Resampling.NEAREST)
            folder = tmp_path / "examples" / name if number < count else tmp_path / "new"
            folder.mkdir(parents=True, exist_ok=True)
            image.convert("RGBA" if number % 2 else "RGB").save(folder / f"{name}-{number}.png")
    return tmp_path


@pytest.fixture
def learner() -> MultiTask:
    torch.manual_seed(0)
    learner = MultiTask(Conv4(8, in_channels=3, image_size=16), num_classes=4)
    learner.adaptation = LogisticRegression(c=1e4)  # the features of an untrained network lie close together
    return learner


@pytest.fixture
def classifier(learner, photos, toy_split) -> PhotoClassifier:
    split = toy_split([2, 2], size=16, channels=3)
    return PhotoClassifier(learner, split).fit(photos / "examples")


def test_probabilities_and_predictions(classifier, photos):
    predictions = classifier.predict(images_at([photos / "new"]))
    assert predictions.probabilities.shape == (8, 4)
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1)
    said = [predictions.class_names[best] for best in predictions.best]
    right = sum(path.name.startswith(name) for path, name in zip(predictions.paths, said))
    assert right >= 6


def test_leave_one_out_equals_one_by_one(classifier):
    """The batched estimate against a plain loop that refits without each example."""
    estimate = classifier.leave_one_out()
    labels, support, right = classifier._labels, classifier._support, 0
    tried = [number for number in range(len(labels)) if (labels == labels[number]).sum() > 1]
    for number in tried:
        rest = [other for other in range(len(labels)) if other != number]
        with torch.no_grad():
            head = classifier.adaptation.head(support[None, rest], labels[None, rest], 4)
            right += int(head.scores(support[None, [number]]).argmax() == labels[number])
    assert (estimate.right, estimate.tried) == (right, 19)
    assert len(tried) == 19
    bounds = stats.binomtest(right, 19).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == (bounds.low, bounds.high)
    assert estimate.baseline == pytest.approx(11 / 19)


def test_no_estimate_where_every_class_has_one_example(learner, photos, toy_split):
    for path in (photos / "examples").rglob("*.png"):
        if not path.stem.endswith("-0"):
            path.unlink()
    classifier = PhotoClassifier(learner, toy_split([2, 2], size=16, channels=3)).fit(photos / "examples")
    assert classifier.leave_one_out() is None


def test_what_cannot_be_learnt_is_refused(learner, photos, toy_split):
    split = toy_split([2, 2], size=16, channels=3)
    (photos / "examples" / "empty").mkdir()
    with pytest.raises(DataError, match="empty hold no images"):
        PhotoClassifier(learner, split).fit(photos / "examples")
    with pytest.raises(DataError, match="at least two folders"):
        PhotoClassifier(learner, split).fit(photos / "new")
    (photos / "examples" / "empty" / "no.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no\.png"):
        PhotoClassifier(learner, split).fit(photos / "examples")
    learner.adaptation = TuneAll()
    with pytest.raises(ConfigError, match="these: matching-net, metaoptnet, mtl, protonet, r2d2, supervised"):
        PhotoClassifier(learner, split)


def test_what_cannot_be_predicted_is_refused(learner, classifier, photos, toy_split):
    for nothing in ([], [photos / "none"], ["nowhere.png"], photos / "examples" / "none"):
        (photos / "none").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"there are no images|does not exist.*; name"):
            classifier.predict(nothing)
    fresh = PhotoClassifier(learner, toy_split([2, 2], size=16, channels=3))
    for use in (lambda: fresh.predict([photos / "new"]), fresh.leave_one_out):
        with pytest.raises(ConfigError, match="has learnt no classes yet; call fit with a folder of examples first"):
            use()
    (photos / "examples" / "cat" / "no.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no\.png"):
        fresh.fit(photos / "examples")
    with pytest.raises((ConfigError, DataError)):
        fresh.predict([photos / "new"])


def test_paths_may_be_strings_and_folders(classifier, photos, tmp_path):
    files = sorted((photos / "new").iterdir())
    expected = classifier.predict(files)
    for places in (photos / "new", str(photos / "new"), [str(path) for path in files], tuple(files)):
        predictions = classifier.predict(places)
        assert predictions.paths == files
        np.testing.assert_array_equal(predictions.probabilities, expected.probabilities)
    one = classifier.predict(str(files[0]))
    assert len(one.probabilities) == 1
    expected.save(tmp_path / "path.csv")
    expected.save(str(tmp_path / "string.csv"))
    assert (tmp_path / "path.csv").read_bytes() == (tmp_path / "string.csv").read_bytes()


def test_command_line(photos, toy_data, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    assert main(["classify", "examples", "new"]) == 2
    assert "runs/ holds none" in capsys.readouterr().err
    learner = MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)
    settings = {"max_epochs": 1, "tasks_per_epoch": 4, "meta_batch": 2, "validation_tasks": 4}
    train(learner, toy_data, run="runs/toy", progress=False, **settings)
    assert main(["classify", "examples", "new", "--out", "out"]) == 0, "the dataset is nowhere, and not needed"
    out = capsys.readouterr().out
    assert "features by runs/toy, trained on toy" in out
    assert "of 19" in out
    with open("out/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert all(row["class"] in COUNTS and 0 <= float(row["probability"]) <= 1 for row in rows)
    assert Path("out/predictions.png").read_bytes().startswith(b"\x89PNG")


def test_an_older_run_needs_its_dataset(toy_data, tmp_path, monkeypatch):
    learner = MultiTask(Conv4(8, in_channels=1, image_size=16), num_classes=12)
    settings = {"max_epochs": 1, "tasks_per_epoch": 4, "meta_batch": 2, "validation_tasks": 4}
    train(learner, toy_data, run=tmp_path / "run", progress=False, **settings)
    told = Run(tmp_path / "run").image_form
    forget_form(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"does not say how its images have to look.*no dataset 'toy'"):
        _ = Run(tmp_path / "run", root=tmp_path).image_form
    monkeypatch.setattr("kshot.runs.run.datasets.load_images", lambda name, root: toy_data)
    assert Run(tmp_path / "run").image_form == told
    assert told == ImageForm("toy", toy_data.train.image_shape, toy_data.train.normalization)


def forget_form(run: Path) -> None:
    """What a run said before it told the form of the images."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {"name": "toy"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
