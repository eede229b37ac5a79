"""`kshot classify`: a person's own classes, a few photographs of each, and new photographs to recognise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from kshot.cli.options import ROOT_TEXT, Options
from kshot.errors import ConfigError
from kshot.photos.classifier import PhotoClassifier, Predictions, images_at
from kshot.report import pictures
from kshot.runs.run import Run
from kshot.training.distributed import resolve_device

_SHOWN = 40


def run(arguments: Sequence[str]) -> None:
    """Learn the classes of a folder, estimate how well, and predict the class of new images."""
    options = Options(
        "kshot classify",
        "Recognise your own classes from a few photographs of each.\n\n"
        "EXAMPLES is a folder with one folder per class, named like the class: 3, 5 or 11 photographs each, of any\n"
        "format and size. IMAGES are the files, or folders of files, to recognise. Any run of a feature learner\n"
        "serves, also from another machine, since its dataset is not needed. It need not have seen your classes, but\n"
        "one that was trained on similar images recognises more.",
        [
            "kshot classify examples/ new_photos/ --run runs/mtl-cifar-fs-5shot-seed0",
            "kshot classify examples/ a.jpg b.jpg --out recognised",
        ],
        positional="EXAMPLES IMAGES [IMAGES ...]",
    )
    options.add("examples", Path, None, "folder with one folder of photographs per class")
    options.add("images", list[Path], None, "files or folders to recognise")
    options.add("--run", Path | None, None, "a trained run; null for the newest one in runs/")
    options.add("--out", Path, Path("predictions"), "folder for predictions.csv and predictions.png")
    options.add("--root", Path | None, None, ROOT_TEXT)
    options.add("--device", str, "auto", 'where to compute: "auto" for a GPU if there is one, "cpu", "cuda:1"')
    given = options.parse(arguments)
    paths = images_at(given.images)  # a name that does not exist is said before any work
    folder = given.run or _newest_run(Path("runs"))
    trained = Run(folder, root=given.root)
    learner, form = trained.learner, trained.image_form
    learner.to(resolve_device(given.device))
    print(f"features by {folder}, trained on {form.dataset}")
    classifier = PhotoClassifier(learner, form).fit(given.examples, progress=True)
    estimate = classifier.leave_one_out()
    predictions = classifier.predict(paths, progress=True)
    print(f"\n{_table(predictions)}\n")
    if estimate is None:
        print("How well this works cannot be estimated: give at least two photographs of some class.")
    else:
        print(f"Accuracy on your examples, each recognised by what was learnt from all the others: {estimate}.")
        print(f"Always answering the class with the most examples would give {100 * estimate.baseline:.0f} %.")
    predictions.save(given.out / "predictions.csv")
    captions = _captions(predictions)
    picture = pictures.predictions_picture(list(predictions.images), captions, title="What was recognised")
    print(f"wrote {given.out / 'predictions.csv'} and {pictures.save(picture, given.out / 'predictions.png')}")


def _newest_run(runs: Path) -> Path:
    found = sorted(runs.glob("*/checkpoints/best.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(
            "no run is named and runs/ holds none; train one first (kshot train --recipe mtl-cifar-fs-5shot-conv4), "
            "or name one with --run"
        )
    return found[-1].parents[1]


def _table(predictions: Predictions) -> str:
    rows = []
    for path, shares in list(zip(predictions.paths, predictions.probabilities))[:_SHOWN]:
        first, second = shares.argsort()[::-1][:2]
        names = predictions.class_names
        rows.append(
            [path, names[first], f"{100 * shares[first]:.0f} %", f"{names[second]} {100 * shares[second]:.0f} %"]
        )
    text = tabulate(rows, headers=["image", "class", "probability", "next"], disable_numparse=True)
    hidden = len(predictions.paths) - len(rows)
    return f"{text}\n... and {hidden} more in predictions.csv" if hidden else text


def _captions(predictions: Predictions) -> list[str]:
    return [
        f"{path.name[:22]}\n{predictions.class_names[best][:18]} {100 * shares[best]:.0f} %"
        for path, shares, best in zip(predictions.paths, predictions.probabilities, predictions.best)
    ]
