"""What the commands about photographs share: the options of the network, and how answers are shown."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kshot.cli.options import ROOT_TEXT, Options
from kshot.photos.classifier import FewShotClassifier
from kshot.photos.estimate import Estimate
from kshot.photos.files import NONE, Predictions, Recognised
from kshot.photos.network import LearnerNetwork, PhotoNetwork, PretrainedNetwork, pretrained
from kshot.report import pictures
from kshot.report.names import display_names, printable
from kshot.training.distributed import resolve_device

SKIP_TEXT = "leave out files that cannot be read, and name them, in place of stopping"
REJECT_TEXT = (
    'answer "none of these" for images that resemble no class: about this share, such as 0.05, of images that do show '
    "one is refused, too"
)
_SHOWN = 40
_CLASSES_SHOWN = 20


def add_network_options(options: Options) -> None:
    """The options that say where features come from."""
    options.add(
        "--backbone",
        str,
        default="efficientnet-lite0",
        text="a pretrained backbone: efficientnet-lite0, -lite1 or -lite2, or a model of timm, such as timm:resnet18",
    )
    options.add("--weights", Path | None, text="a file of other weights for the backbone, safetensors or a state dict")
    options.add("--run", Path | None, text="a trained run, whose features are used in place of the backbone's")
    options.add("--root", Path | None, text=ROOT_TEXT)
    options.add(
        "--device", str, default="auto", text='where a run computes: "auto" for a GPU if there is one, "cpu", "cuda:1"'
    )
    options.add(
        "--cache",
        bool,
        default=True,
        text="remember the features and thumbnails of image files in the platform's cache folder",
    )


def new_classifier(given: Any) -> FewShotClassifier:
    """A classifier on the features that the options name; says whose they are."""
    network = _network(given)
    print(f"features by {network.trained_on}")
    published = isinstance(network, PretrainedNetwork) and network.weights is None
    return FewShotClassifier(given.backbone if published else network, cache=given.cache)


def _network(given: Any) -> PhotoNetwork:
    """The run's features if one is named, else the pretrained backbone's."""
    if given.run is None:
        return (
            pretrained(given.backbone)
            if given.weights is None
            else PretrainedNetwork(given.backbone, weights=given.weights)
        )
    from kshot.runs.run import Run

    trained = Run(given.run, root=given.root)
    form, learner = trained.image_form, trained.learner
    learner.to(resolve_device(given.device))
    return LearnerNetwork(learner, form)


@contextmanager
def notes() -> Iterator[None]:
    """Print warnings as notes to the user, without the line of code that gave them."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"note: {printable(str(message))}", file=sys.stderr)
        yield


def answer(classifier: FewShotClassifier, recognised: Recognised, out: Path, *, reject: float | None) -> None:
    """Print the answers, then how far to trust them; write predictions.csv and predictions.png."""
    for line in recognised.broken:
        print(f"note: skipped {printable(line)}", file=sys.stderr)
    if reject is None:
        print(f"\n{_table(recognised)}\n")
        print(trust(classifier.estimate(progress=True)))
    predictions = classifier.calibrated(recognised, reject=reject)
    if reject is not None:
        print(f"\n{_answers(predictions)}\n")
        print(trust(classifier.estimate()))
    predictions.save(out / "predictions.csv")
    print(f"wrote {out / 'predictions.csv'} and {picture_of(predictions, out)}")


def picture_of(
    predictions: Predictions, out: Path, *, title: str = "What was recognised", truth: Sequence[str] | None = None
) -> Path:
    """Write predictions.png, the first photographs with what was said of them; returns its path.

    With the `truth`, the class of each, wrong answers are marked.
    """
    captions, wrong = _captions(predictions), None
    if truth is not None:
        wrong = [said != true for said, true in zip(predictions.answers, truth)]
        captions = [f"{text}\nwrong, it is: {name}" if no else text for text, name, no in zip(captions, truth, wrong)]
    picture = pictures.predictions_picture(list(predictions.images), captions, title=title, wrong=wrong)
    return pictures.save(picture, out / "predictions.png")


def trust(estimate: Estimate | None) -> str:
    """How far to trust the answers: one line, and one per class if there are few."""
    if estimate is None:
        return "How well this works cannot be estimated: give at least two photographs of some class."
    lines = [
        f"To expect on new photographs like these: {estimate} right. So many of {estimate.tried} examples are "
        "recognised by what is learnt without them and without what nearly repeats them."
    ]
    weakest = sorted(estimate.classes, key=lambda each: each.accuracy)
    if len(weakest) > _CLASSES_SHOWN:
        weakest = [each for each in weakest if each.accuracy < 1][:_CLASSES_SHOWN]
    lines += [f"  {each}" for each in weakest]
    hidden = len(estimate.classes) - len(weakest)
    if hidden:
        rest = f"and {hidden} more classes, which are recognised as well or better"
        lines.append(f"  {rest if weakest else f'each of the {hidden} classes is recognised without a mistake'}")
    return "\n".join([*lines, estimate.caution])


def _table(recognised: Recognised) -> str:
    """The classes alone: how sure they are is known only when examples were left out."""
    rows = [[path, *names] for path, names in zip(recognised.paths, recognised.first_two)]
    return _first(rows, ["image", "class", "next"])


def _answers(predictions: Predictions) -> str:
    rows = [
        [path, said, f"{100 * shares.max():.0f} %"]
        for path, said, shares in zip(predictions.paths, predictions.answers, predictions.probabilities)
    ]
    return _first(rows, ["image", "class", "probability"])


def _first(rows: list[list[Any]], headers: list[str]) -> str:
    text = tabulate(rows[:_SHOWN], headers=headers, disable_numparse=True)
    hidden = len(rows) - _SHOWN
    return f"{text}\n... and {hidden} more in predictions.csv" if hidden > 0 else text


def _captions(predictions: Predictions) -> list[str]:
    """File, class and probability; different classes look different, however long their names are."""
    names = [*predictions.class_names, NONE]
    shown = dict(zip(names, ("\n".join(textwrap.wrap(name, 24)) for name in display_names(names, 48))))
    return [
        f"{path.name}\n{shown[said]}\n{100 * shares.max():.0f} %"
        for path, shares, said in zip(predictions.paths, predictions.probabilities, predictions.answers)
    ]
