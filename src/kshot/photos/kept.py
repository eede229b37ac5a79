"""Classifiers that outlive the process: files to keep, to send to somebody else, or to run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from kshot.photos.network import PhotoNetwork
from kshot.photos.saving import Saved, packed, restore

C = TypeVar("C", bound="KeptClassifier")


class KeptClassifier:
    """How `FewShotClassifier` is saved and shared."""

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

    def _check_fitted(self) -> None:
        raise NotImplementedError
