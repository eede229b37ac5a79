"""Recognise a person's own classes from a few photographs of each, with a learner trained on other classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from tqdm import tqdm

from kshot.data.augmentation import normalize
from kshot.data.dataset import ImageForm, Split
from kshot.data.folders import image_files, subfolders
from kshot.data.images import find_value_range, read_images
from kshot.errors import ConfigError, DataError
from kshot.evaluation.features import device_of, evaluating
from kshot.files import write_text
from kshot.learners.base import FeatureLearner, Learner, learners
from kshot.solvers import HeadAdaptation

_IMAGES_AT_ONCE = 256
_LEAVE_ONE_OUT_BYTES = 1 << 27  # of support features in one batch of left-out photographs


@dataclass(frozen=True)
class Estimate:
    """How many of the examples were recognised by a head that was fitted without them, and the 95% Wilson interval.

    Attributes
    ----------
    right, tried
        Examples that were recognised, of those that were left out in turn.
    low, high
        The interval of the accuracy, 0..1.
    baseline
        The accuracy of always answering the class with the most examples.
    """

    right: int
    tried: int
    low: float
    high: float
    baseline: float

    def __str__(self) -> str:
        share, low, high = (100 * value for value in (self.right / self.tried, self.low, self.high))
        return f"{self.right} of {self.tried}, {share:.0f} % (95% interval {low:.0f} to {high:.0f} %)"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probability of each of N classes for each of M images.

    Attributes
    ----------
    paths
        The M image files.
    class_names
        The N classes.
    probabilities
        Probabilities (M, N), each row with the sum 1.
    images
        The images as the learner saw them, (M, H, W, C) uint8.
    """

    paths: Sequence[Path]
    class_names: Sequence[str]
    probabilities: NDArray[np.float64]
    images: NDArray[np.uint8]

    @property
    def best(self) -> NDArray[np.int64]:
        """(M,) the most probable class of each image."""
        return self.probabilities.argmax(1)

    def save(self, path: Path | str) -> None:
        """Write a CSV file: image, predicted class, its probability, then the probability of each class."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "class", "probability", *self.class_names])
        for image, row, best in zip(self.paths, self.probabilities, self.best):
            writer.writerow([image, self.class_names[best], f"{row[best]:.4f}", *(f"{share:.4f}" for share in row)])
        write_text(Path(path), text.getvalue())


class PhotoClassifier:
    """A head on the features of a trained learner, fitted to examples; classes may differ in how many they have.

    Parameters
    ----------
    learner
        A trained feature learner; its training classes may be quite unlike those to recognise.
    trained_on
        How images have to look, as `Run.image_form` says, or a split of the dataset.

    Raises
    ------
    ConfigError
        If the learner has no features, or an adaptation that changes the network.
    """

    def __init__(self, learner: Learner, trained_on: ImageForm | Split) -> None:
        if not isinstance(learner, FeatureLearner) or not isinstance(learner.adaptation, HeadAdaptation):
            suitable = sorted(name for name, kind in learners.items() if issubclass(kind, FeatureLearner))
            raise ConfigError(
                f"{type(learner).__name__} learns a task by changing its network; photographs are classified with a "
                f"feature learner: choose a run of one of these: {', '.join(suitable)}"
            )
        self.learner, self.adaptation, self.trained_on = learner, learner.adaptation, trained_on
        self.class_names: list[str] = []

    def fit(self, examples: Path | str, *, progress: bool = False) -> PhotoClassifier:
        """Learn the classes of a folder that holds one folder of photographs per class.

        Parameters
        ----------
        examples
            The folder; its folders are named like the classes.
        progress
            Show a bar on the terminal.

        Returns
        -------
        PhotoClassifier
            Itself.

        Raises
        ------
        DataError
            If there are fewer than two classes, a class is empty, or a file is no image.
        """
        folders = subfolders(Path(examples))
        files = {folder.name: image_files(folder) for folder in folders}
        empty = [name for name, paths in files.items() if not paths]
        if len(files) < 2 or empty:
            what = f"{', '.join(empty)} hold no images" if empty else f"there are {len(files)} of them"
            raise DataError(
                f"{examples} should hold at least two folders, each with photographs of one class, but {what}; "
                f"for instance {examples}/cat/1.jpg and {examples}/dog/1.jpg"
            )
        paths = [path for members in files.values() for path in members]
        self._value_range = find_value_range(paths)  # new images are read as the examples are
        self._support, _ = self._features(paths, progress)
        labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()])
        self._labels = torch.from_numpy(labels).to(self._support.device)
        self.class_names = list(files)
        return self

    @torch.no_grad()
    def predict(self, images: Path | str | Sequence[Path | str], *, progress: bool = False) -> Predictions:
        """The probability of each class for each image.

        Parameters
        ----------
        images
            Image files, folders of them, or a single one of these.
        progress
            Show a bar on the terminal.

        Raises
        ------
        ConfigError
            If no classes were learnt yet.
        DataError
            If there is no image, a place does not exist, or a file is no image.
        """
        self._check_fitted()
        paths = images_at([images] if isinstance(images, (str, Path)) else images)
        features, pixels = self._features(paths, progress)
        head = self.adaptation.head(self._support[None], self._labels[None], len(self.class_names))
        probabilities = head.scores(features[None])[0].double().softmax(-1)
        return Predictions(paths, self.class_names, probabilities.cpu().numpy(), pixels)

    @torch.no_grad()
    def leave_one_out(self) -> Estimate | None:
        """Recognise each example by a head that is fitted to all the others; None if no class has two examples.

        An example that is alone in its class is not left out, since nothing would be known of the class without it.

        Raises
        ------
        ConfigError
            If no classes were learnt yet.
        """
        self._check_fitted()
        labels, count = self._labels, len(self._labels)
        counts = labels.bincount(minlength=len(self.class_names))
        left_out = (counts[labels] > 1).nonzero()[:, 0]
        if not len(left_out):
            return None
        others = torch.arange(count - 1, device=labels.device).expand(len(left_out), -1)
        others = others + (others >= left_out[:, None])
        chunk = max(1, _LEAVE_ONE_OUT_BYTES // (self._support.nbytes or 1))
        right = 0
        for some, rest in zip(left_out.split(chunk), others.split(chunk)):
            head = self.adaptation.head(self._support[rest], labels[rest], len(self.class_names))
            predicted = head.scores(self._support[some][:, None]).argmax(-1)[:, 0]
            right += int((predicted == labels[some]).sum())
        bounds = stats.binomtest(right, len(left_out)).proportion_ci(0.95, method="wilson")
        baseline = float(counts.max()) / len(left_out)
        return Estimate(right, len(left_out), float(bounds.low), float(bounds.high), baseline)

    def _check_fitted(self) -> None:
        """ConfigError before `fit`."""
        if not self.class_names:
            raise ConfigError("this classifier has learnt no classes yet; call fit with a folder of examples first")

    @torch.no_grad()
    def _features(self, paths: Sequence[Path], progress: bool) -> tuple[Tensor, NDArray[np.uint8]]:
        """Features (M, D) of image files, and the images, resized to what the learner was trained on."""
        channels, size, _ = self.trained_on.image_shape
        device = device_of(self.learner)
        features, images = [], []
        bar = tqdm(total=len(paths), unit="photo", desc="photographs", disable=not progress, delay=2)
        with evaluating(self.learner, "float32"), bar:
            for start in range(0, len(paths), _IMAGES_AT_ONCE):
                some = paths[start : start + _IMAGES_AT_ONCE]
                images.append(read_images(some, size, channels=channels, value_range=self._value_range))
                batch = torch.from_numpy(images[-1]).to(device)
                features.append(self.learner.features(normalize(batch, self.trained_on.normalization)))
                bar.update(len(batch))
        return torch.cat(features), np.concatenate(images)


def images_at(places: Sequence[Path | str]) -> list[Path]:
    """Image files, and those inside of folders.

    Raises
    ------
    DataError
        If a place does not exist, or there is no image.
    """
    images: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place} does not exist; name image files, or folders that hold some")
        images += image_files(place) if place.is_dir() else [place]
    if not images:
        where = f" in {', '.join(map(str, places))}" if places else ""
        raise DataError(f"there are no images{where}; name files, or folders that hold some")
    return images
