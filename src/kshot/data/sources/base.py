"""The source of a dataset: its name, where its files can be had, and how to read them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from kshot.data.writing import Contents
from kshot.errors import DataError


class Source(ABC):
    """Reads one dataset from its publisher's files.

    A subclass is one file in this folder and one row in ``kshot.data.sources.SOURCES``. Its constructor's arguments,
    with their types and the texts of its docstring, are the options of ``kshot data prepare NAME``.

    Attributes
    ----------
    name
        What users call the dataset.
    description
        One line for ``kshot data list``.
    classes
        How many in train, val and test, as a reader wants to see it.
    obtain
        Where the files can be had, and which of them to hand over.
    arguments
        The other arguments that ``kshot data prepare NAME`` needs.
    reads_files
        Whether it has files at all, which a user may hand over.
    automatic
        Whether loading prepares it, which takes no files, no options, and seconds.
    needs_name
        Whether users fill it with their own content, and therefore name each prepared form.
    loads_paths
        Whether ``kshot.load("NAME:PATH")`` prepares what lies at a path, see `name_for`.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    classes: ClassVar[str]
    obtain: ClassVar[str]
    arguments: ClassVar[str] = "--source PATH"
    reads_files: ClassVar[bool] = True
    automatic: ClassVar[bool] = False
    needs_name: ClassVar[bool] = False
    loads_paths: ClassVar[bool] = False

    @abstractmethod
    def read(self, path: Path | None, root: Path) -> Contents:
        """Look through the files at `path` and return what they hold.

        Parameters
        ----------
        path
            The file or folder that the user hands over; None without one.
        root
            The folder of prepared datasets.

        Raises
        ------
        DataError
            If a file is missing, damaged, or of another version, before any pixel is written.
        """

    @classmethod
    def name_for(cls, path: Path) -> str:
        """The name of the prepared form of the content of `path`; another name once the content has changed."""
        raise DataError(f"{cls.name} is loaded by its name alone, and not with a path such as {path}")

    def required(self, path: Path | None) -> Path:
        """`path`, or a DataError that says where the files can be had."""
        if path is None:
            raise DataError(f"{self.name} needs its files. {self.how_to_prepare()}")
        if not path.exists():
            raise DataError(f"{path} does not exist. {self.how_to_prepare()}")
        return path

    @classmethod
    def how_to_prepare(cls) -> str:
        """The command that prepares this dataset, and where its files can be had."""
        return f"{cls.obtain} Then: kshot data prepare {cls.name} {cls.arguments}"


def packaged_splits(name: str) -> Any:
    """The class lists in ``kshot/data/splits/NAME.json``."""
    return json.loads((Path(__file__).parents[1] / "splits" / f"{name}.json").read_text())
