"""The cells of a study and where each of them is."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kshot.errors import ConfigError
from kshot.files import read_json
from kshot.studies.cell_folder import CellFolder
from kshot.studies.cells import Cell
from kshot.studies.study_file import StudyFile


class StudyFolder:
    """What a study is and what its folder holds; `Study` is what users meet."""

    def __init__(self, typed: str, file: StudyFile, cells: Sequence[Cell], *, folder: Path, root: Path | None) -> None:
        self.typed = typed
        self.file = file
        self.cells = cells
        self.folder = folder
        self.root = root

    @property
    def name(self) -> str:
        """That of its file."""
        return self.file.name

    def cell_folder(self, cell: Cell) -> CellFolder:
        """Where a cell is."""
        return CellFolder(self.folder / "cells" / cell.name)

    def matching(self, pattern: str | None) -> Sequence[Cell]:
        """The cells whose names match a pattern such as ``maml-*``; ConfigError if there are none."""
        if pattern is None:
            return self.cells
        found = [cell for cell in self.cells if fnmatch.fnmatch(cell.name, pattern) or cell.entry == pattern]
        if not found:
            names = ", ".join(dict.fromkeys(cell.entry for cell in self.cells))
            raise ConfigError(f"study {self.name} has no cell that matches {pattern!r}; its cells: {names}")
        return found

    def estimates(self) -> dict[str, Any]:
        """What the plan said of each cell that was planned, by name."""
        place = self.folder / "estimates.json"
        return read_json(place) if place.exists() else {}
