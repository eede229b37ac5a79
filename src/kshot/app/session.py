"""What one visitor of the page teaches and asks: a classifier that learns whenever photographs come or go."""

from __future__ import annotations

import re
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kshot.errors import ConfigError, DataError, KshotError
from kshot.photos import Estimate, ExampleVerdict, FewShotClassifier
from kshot.photos.container import SUFFIX

REJECT = 0.05  # of true photographs, which are taken for none of the classes
_DOUBTFUL = 4  # examples that are shown
_OF_FILE = "example-of-the-opened-classifier-"  # before the names of its thumbnails

Thumbnail = NDArray[np.uint8]  # (H, W, C)


@dataclass(frozen=True)
class Card:
    """A class on the page: its name, and the photographs that were added there."""

    name: str
    photographs: tuple[Path, ...]


@dataclass(frozen=True)
class Answer:
    """What is said of one photograph.

    Attributes
    ----------
    probabilities
        Each class with its calibrated probability, 0..1, the largest first.
    known
        Whether it resembles the examples; False if it probably shows none of the classes; None if that cannot be told.
    nearest
        The example that it resembles most: its thumbnail, if there is one, and its class.
    """

    probabilities: Sequence[tuple[str, float]]
    known: bool | None
    nearest: tuple[Thumbnail | None, str]


@dataclass(eq=False)
class Session:
    """One visitor of the page.

    Attributes
    ----------
    backbone
        Makes the features: a name, or a network that all visitors share.
    opened
        A classifier that was opened, to whose examples photographs are added; None for none.
    classifier
        What was learnt last; None for nothing yet.
    seconds
        How long that took; None if it came from a file.
    remarks
        What was noticed while learning, such as the same photograph in two classes.
    """

    backbone: object
    opened: Path | None = None
    classifier: FewShotClassifier | None = None
    seconds: float | None = None
    remarks: Sequence[str] = ()
    _learnt: tuple[Card, ...] = ()
    _folder: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory, repr=False)

    def learn(self, cards: Sequence[Card]) -> bool:
        """Learn the photographs on the cards; False if these are what was learnt last.

        Files that cannot be read are left out, with a remark.

        Raises
        ------
        KshotError
            If they cannot be learnt; what was learnt before is forgotten.
        """
        filled = tuple(card for card in cards if card.photographs)
        if filled == self._learnt:
            return False
        start = time.perf_counter()
        self.classifier, self._learnt, self.remarks = None, filled, ()
        paths = [path for card in filled for path in card.photographs]
        names = [card.name for card in filled for _ in card.photographs]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            if self.opened is not None:
                classifier = FewShotClassifier.load(self.opened)
                self.classifier = classifier.partial_fit(paths, names, skip_broken=True) if paths else classifier
            elif len(set(names)) > 1:
                self.classifier = FewShotClassifier(self.backbone).fit(paths, names, skip_broken=True)  # type: ignore[arg-type]
        self.remarks = [without_folders(warning.message) for warning in caught]
        self.seconds = time.perf_counter() - start
        return True

    def open(self, path: Path) -> list[tuple[str, list[Path]]]:
        """Start from a classifier that was saved; returns its classes with files of the thumbnails of their examples.

        Raises
        ------
        CheckpointError, ConfigError
            If it cannot be opened; what was learnt before stays.
        """
        classifier = FewShotClassifier.load(path)
        if not classifier.takes_photographs:
            raise ConfigError("it takes features, and the page has photographs")
        self.opened, self.classifier, self._learnt, self.remarks, self.seconds = path, classifier, (), (), None
        classes: dict[str, list[Path]] = {str(name): [] for name in classifier.classes_}
        thumbnails = classifier.thumbnails
        for verdict in sorted(classifier.examples(), key=lambda each: each.number):
            if thumbnails is not None:
                file = Path(self._folder.name) / f"{_OF_FILE}{verdict.number}.png"
                Image.fromarray(np.squeeze(thumbnails[verdict.number])).save(file)
                classes[verdict.label].append(file)
        return list(classes.items())

    @staticmethod
    def is_of_file(photograph: Path) -> bool:
        """Whether a file on the page is the thumbnail of an example of the classifier that was opened."""
        return photograph.name.startswith(_OF_FILE)

    def save(self) -> Path:
        """Write what was learnt to a file, with thumbnails if they are known; DataError if that is nothing."""
        classifier = self.known_classifier()
        stem = re.sub(r"[^\w-]+", "-", "-".join(map(str, classifier.classes_[:3]))).strip("-") or "classifier"
        path = Path(self._folder.name) / f"{stem[:60]}{SUFFIX}"
        return classifier.save(path, thumbnails=classifier.thumbnails is not None)

    def estimate(self) -> Estimate | None:
        """The accuracy to expect; None if every class has a single example."""
        return self.known_classifier().estimate()

    def doubtful(self) -> list[tuple[Thumbnail | None, ExampleVerdict]]:
        """The examples that look like another class, the most doubtful first, with their thumbnails."""
        classifier = self.known_classifier()
        verdicts = [verdict for verdict in classifier.examples() if not verdict.agrees][:_DOUBTFUL]
        return [(self._thumbnail(verdict.number), verdict) for verdict in verdicts]

    def answer(self, photograph: Path) -> Answer:
        """What the classifier says of a photograph; DataError if it is none, or if nothing was learnt."""
        classifier = self.known_classifier()
        recognised = classifier.recognise([photograph])
        try:
            predictions = classifier.calibrated(recognised, reject=REJECT)
        except ConfigError:  # every class has a single example
            predictions = classifier.calibrated(recognised)
        shares = predictions.probabilities[0]
        order = shares.argsort()[::-1]
        nearest = int(classifier.nearest_examples([photograph])[0])
        return Answer(
            [(predictions.class_names[way], float(shares[way])) for way in order],
            None if predictions.refused is None else not predictions.refused[0],
            (self._thumbnail(nearest), next(each.label for each in classifier.examples() if each.number == nearest)),
        )

    def known_classifier(self) -> FewShotClassifier:
        """What was learnt; DataError if that is nothing yet."""
        if self.classifier is None:
            raise DataError("nothing was learnt yet: add photographs to at least two classes")
        return self.classifier

    def _thumbnail(self, number: int) -> Thumbnail | None:
        thumbnails = self.known_classifier().thumbnails
        return None if thumbnails is None else thumbnails[number]


def without_folders(said: Warning | KshotError | str) -> str:
    """What was said, without the temporary folders that files of the page are in."""
    return re.sub(r"/\S*/(?=[^/\s]+)", "", str(said))
