"""Classifiers that outlive the process: files to keep, to send to somebody else, or to run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kshot.errors import ConfigError
from kshot.photos.export import write_onnx
from kshot.photos.hub import download, upload
from kshot.photos.network import PhotoNetwork
from kshot.photos.saving import Saved, linear, packed, restore

C = TypeVar("C", bound="KeptClassifier")


class KeptClassifier:
    """How `FewShotClassifier` is saved and shared."""

    _fitted_to_photographs: bool
    _thumbnails: NDArray[np.uint8] | None

    def save(self, path: Path | str, *, thumbnails: bool = False) -> Path:
        """Write the classifier to a file, ``.kshot``, that `load` opens on any machine; returns the path.

        The file is safetensors with JSON, and holds nothing that could be executed: the classes, the head, the
        temperature, the features and file names of the examples, and the name of a published backbone, or the weights
        of another one.

        Parameters
        ----------
        path
            The file, which is replaced if it exists.
        thumbnails
            Add a small picture of each example, on which people may be recognised.

        Raises
        ------
        ConfigError
            If it is not fitted, or a part of it cannot be saved.
        """
        self._check_fitted()
        packed(self, thumbnails=thumbnails).write(path)
        return Path(path)

    @classmethod
    def load(cls: type[C], path: Path | str, *, backbone: PhotoNetwork | None = None) -> C:
        """A classifier that `save` wrote, with the same answers.

        Parameters
        ----------
        path
            The file. It may come from somebody else: nothing in it is executed.
        backbone
            The network that it was fitted with, if that was one of your own; None for the one that the file names or
            holds.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or of a newer version.
        ConfigError
            If its backbone is not installed, or is another one.
        """
        classifier: Any = cls()
        restore(classifier, Saved.read(path), path, backbone)
        return classifier

    @property
    def thumbnails(self) -> NDArray[np.uint8] | None:
        """Small pictures of the S examples, (S, H, W, C) uint8; None if not all are known."""
        self._check_fitted()
        return self._thumbnails

    @property
    def takes_photographs(self) -> bool:
        """Whether it was fitted to photographs, and not to features."""
        self._check_fitted()
        return self._fitted_to_photographs

    def export_onnx(self, path: Path | str) -> Path:
        """Write the classifier as ONNX: images in, calibrated probabilities out, within 1e-4; returns the path.

        The input ``images`` is (M, S, S, C) uint8, RGB: turn a photograph as its EXIF says, resize its shorter side to
        ``resize`` and crop the centre. The metadata of the file hold ``image_size`` S, ``resize`` and the ``classes``.
        It runs under ONNX Runtime alone, see examples/classify_with_onnx.py.

        Parameters
        ----------
        path
            The file, which is replaced if it exists.

        Raises
        ------
        ConfigError
            If it is not fitted to photographs, its head is not linear, or the backbone cannot be written as ONNX.
        """
        self._check_fitted()
        classifier: Any = self
        if not classifier._fitted_to_photographs:
            raise ConfigError("this classifier was fitted to features, and ONNX files of kshot take photographs")
        head = linear(classifier._head)
        if head is None:
            raise ConfigError(
                f"the head {classifier._head} is not linear; fit it with another, such as head='logistic'"
            )
        classes = classifier.classes_.tolist()
        write_onnx(Path(path), classifier._network(), head, temperature=classifier.temperature, classes=classes)
        return Path(path)

    def push_to_hub(
        self, repository: str, *, thumbnails: bool = False, private: bool = False, token: str | None = None
    ) -> str:
        """Put the classifier on the Hugging Face hub, with a model card; returns the address.

        Parameters
        ----------
        repository
            Its name there, as in "me/mugs"; it is made if needed.
        thumbnails
            As for `save`: everybody who may read the repository sees them.
        private
            Make a new repository private.
        token
            A token of the hub; None for the one that ``hf auth login`` keeps.

        Raises
        ------
        ConfigError
            If it is not fitted, ``pip install 'kshot[hub]'`` is missing, or the hub refuses.
        """
        self._check_fitted()
        return upload(packed(self, thumbnails=thumbnails), repository, private=private, token=token)

    @classmethod
    def from_hub(cls: type[C], repository: Path | str, *, revision: str | None = None, token: str | None = None) -> C:
        """A classifier from the Hugging Face hub.

        Parameters
        ----------
        repository
            Its name there, as in "me/mugs", or a folder with what such a repository holds.
        revision
            A branch, tag or commit; None for the newest.
        token
            As for `push_to_hub`.

        Raises
        ------
        ConfigError, CheckpointError, DataError
            If the hub cannot be reached, or as for `load`.
        """
        return cls.load(download(repository, revision=revision, token=token))

    def _check_fitted(self) -> None:
        raise NotImplementedError
