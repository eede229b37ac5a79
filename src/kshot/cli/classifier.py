"""`kshot classifier`: classifiers of photographs as files, which are fitted, asked, measured, shown and exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kshot.cli.dispatch import dispatch
from kshot.cli.options import Options
from kshot.cli.photographs import REJECT_TEXT, SKIP_TEXT, add_network_options, answer, new_classifier, notes, trust
from kshot.errors import ConfigError
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.files import images_at
from kshot.photos.saving import Saved
from kshot.report import pictures

_HELP = """usage: kshot classifier fit|predict|evaluate|show|export [options]

A classifier is one file that knows a few classes of photographs. It can be kept, sent to somebody else, asked again,
and exported to ONNX for programs without Python; nothing in it is executed when it is opened.

commands:
  fit EXAMPLES                 learn the classes of a folder with one folder of photographs per class
  predict CLASSIFIER IMAGES    recognise new photographs
  evaluate CLASSIFIER FOLDER   measure it on photographs of known classes, in one folder per class
  show CLASSIFIER              what the file holds
  export CLASSIFIER            write an ONNX file: images in, probabilities out

examples:
  kshot classifier fit examples/ --out mugs.kshot
  kshot classifier predict mugs.kshot new_photos/ --reject 0.05
  kshot classifier evaluate mugs.kshot known_photos/ --out evaluation
  kshot classifier show mugs.kshot
  kshot classifier export mugs.kshot --out mugs.onnx

`kshot classifier fit --help` (predict, evaluate, show, export) explains the options.
"""


def run(arguments: Sequence[str]) -> None:
    """Dispatch to fit, predict, evaluate, show or export."""
    actions = {"fit": _fit, "predict": _predict, "evaluate": _evaluate, "show": _show, "export": _export}
    with notes():
        dispatch("kshot classifier", arguments, actions, help_text=_HELP)


def _fit(arguments: Sequence[str]) -> None:
    """Learn the classes of a folder with one folder of photographs per class, and keep the classifier in one file.

    Examples
    --------
    kshot classifier fit examples/ --out mugs.kshot
    kshot classifier fit examples/ --thumbnails --skip-broken
    """
    options = Options.of("kshot classifier fit", _fit, positional="EXAMPLES")
    options.add("examples", Path, text="folder with one folder of photographs per class")
    options.add("--out", Path, default=Path("classifier.kshot"), text="the file to write")
    options.add("--thumbnails", bool, default=False, text="keep a small picture of each example in the file")
    options.add("--skip-broken", bool, default=False, text=SKIP_TEXT)
    add_network_options(options)
    given = options.parse(arguments)
    classifier = new_classifier(given)
    classifier.fit(given.examples, skip_broken=given.skip_broken, progress=True)
    print(trust(classifier.estimate(progress=True)))
    doubtful = [verdict for verdict in classifier.examples() if not verdict.agrees][:5]
    if doubtful:
        print("\nLook at these examples, which look like another class:")
        print("\n".join(f"  {verdict}" for verdict in doubtful))
    print(f"\nsaved the classifier as {classifier.save(given.out, thumbnails=given.thumbnails)}")
    print(f"next     kshot classifier predict {given.out} new_photos/")


def _predict(arguments: Sequence[str]) -> None:
    """Recognise new photographs by a classifier that was saved: a table, a CSV file and a picture.

    Examples
    --------
    kshot classifier predict mugs.kshot new_photos/
    kshot classifier predict mugs.kshot a.jpg b.jpg --reject 0.05 --out recognised
    """
    options = Options.of("kshot classifier predict", _predict, positional="CLASSIFIER IMAGES [IMAGES ...]")
    _add_classifier(options)
    options.add("images", list[Path], text="files or folders to recognise")
    options.add("--out", Path, default=Path("predictions"), text="folder for predictions.csv and predictions.png")
    options.add("--reject", float | None, text=REJECT_TEXT)
    options.add("--skip-broken", bool, default=False, text=SKIP_TEXT)
    given = options.parse(arguments)
    paths = images_at(given.images)
    classifier = FewShotClassifier.load(given.classifier)
    recognised = classifier.recognise(paths, skip_broken=given.skip_broken, progress=True)
    answer(classifier, recognised, given.out, reject=given.reject)


def _evaluate(arguments: Sequence[str]) -> None:
    """Measure a classifier on photographs whose classes are known: accuracy with its 95% interval, each class, the
    confusions, and the worst mistakes. Photographs that it has learnt from say nothing; take others.

    Examples
    --------
    kshot classifier evaluate mugs.kshot known_photos/ --out evaluation
    """
    options = Options.of("kshot classifier evaluate", _evaluate, positional="CLASSIFIER FOLDER")
    _add_classifier(options)
    options.add("folder", Path, text="folder with one folder of photographs per class")
    options.add(
        "--out",
        Path,
        default=Path("evaluation"),
        text="folder for confusion.csv, confusion.png, classes.csv, mistakes.csv",
    )
    given = options.parse(arguments)
    result = FewShotClassifier.load(given.classifier).evaluate(given.folder)
    print(f"accuracy {result}")
    print(f"calibration error {result.calibration_error:.3f}")
    weakest = sorted((each for each in result.classes if each.images), key=lambda each: each.recall)[:20]
    for each in weakest:
        recall, precision = f"{100 * each.recall:.0f} %", f"{100 * each.precision:.0f} %"
        print(f"  {each.name}: {recall} of {each.images} recognised, precision {precision}")
    if result.mistakes:
        print("worst mistakes:")
        print("\n".join(f"  {mistake}" for mistake in result.mistakes[:5]))
    print(f"wrote {', '.join(map(str, result.save(given.out)))}")


def _show(arguments: Sequence[str]) -> None:
    """What the file of a classifier holds: classes, examples, backbone, head, and the accuracy to expect.

    Examples
    --------
    kshot classifier show mugs.kshot
    kshot classifier show mugs.kshot --picture examples.png
    """
    options = Options.of("kshot classifier show", _show, positional="CLASSIFIER")
    _add_classifier(options)
    options.add("--picture", Path | None, text="draw the thumbnails of the examples to this file, if there are any")
    given = options.parse(arguments)
    saved = Saved.read(given.classifier)
    print(saved)
    if given.picture is None:
        return
    if "thumbnails" not in saved.tensors:
        raise ConfigError(f"{given.classifier} holds no thumbnails; fit it with --thumbnails")
    images, names = saved.tensors["thumbnails"].numpy(), np.asarray(saved.about["classes"])[saved.tensors["labels"]]
    picture = pictures.predictions_picture(list(images), list(map(str, names)), title="Examples")
    print(f"wrote {pictures.save(picture, given.picture)}")


def _export(arguments: Sequence[str]) -> None:
    """Write an ONNX file that takes photographs and gives probabilities, for programs without kshot or PyTorch:
    examples/classify_with_onnx.py runs it with ONNX Runtime alone.

    Examples
    --------
    kshot classifier export mugs.kshot --out mugs.onnx
    """
    options = Options.of("kshot classifier export", _export, positional="CLASSIFIER")
    _add_classifier(options)
    options.add("--out", Path | None, text="the file to write; by default the classifier's name with .onnx")
    given = options.parse(arguments)
    path = given.out or given.classifier.with_suffix(".onnx")
    classifier: Any = FewShotClassifier.load(given.classifier)
    print(f"wrote {classifier.export_onnx(path)}")


def _add_classifier(options: Options) -> None:
    options.add("classifier", Path, text="file that kshot classifier fit, or FewShotClassifier.save, wrote")
