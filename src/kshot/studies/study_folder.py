"""The cells of a study, where each of them is, and whether a folder holds this study."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from kshot.errors import ConfigError, DataError
from kshot.files import read_json, read_text, write_text
from kshot.studies.cell_folder import CellFolder
from kshot.studies.cells import Cell
from kshot.studies.study_file import StudyFile

# what no cell depends on that is done already
_MAY_CHANGE = ("title", "description", "unknown", "reference", "seeds")


class StudyFolder:
    """What a study is and what its folder holds; `Study` is what users meet."""

    def __init__(
        self,
        typed: str,
        file: StudyFile,
        cells: Sequence[Cell],
        *,
        folder: Path,
        root: Path | None,
        budget: str,
        given: Mapping[str, Any],
    ) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file, but a study needs a folder; choose another one (--out)")
        self.typed = typed
        self.file = file
        self.cells = cells
        self.folder = folder
        self.root = root
        self.budget_text = budget
        self._given = given

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

    @property
    def budget_begun(self) -> str:
        """The budget with which the study in the folder was begun; that of this study if none was."""
        return str(self._begun().get("budget", self.budget_text))

    def command(self, action: str) -> str:
        """What to type for this study: the action, such as "run", with all options that choose the study."""
        options = dict(self._given)
        if self.budget_begun != self.file.budget:
            options["budget"] = [self.budget_begun]
        words = ["kshot", "study", action, self.typed]
        for option, values in options.items():
            if values is not None:
                words += [f"--{option}", *map(str, values)]
        return shlex.join(words)

    def take_into_use(self) -> None:
        """Say what the folder holds; ConfigError if that is another study, of which something was planned."""
        given = _plain(asdict(self.file) | {"budget": self.budget_text})
        saved = self._begun()
        changed = [key for key in {**saved, **given} if saved.get(key) != given.get(key)]
        differing = [key for key in changed if key not in _MAY_CHANGE]
        if saved and differing and any((self.folder / "cells").glob("*/cell.yaml")):
            raise ConfigError(
                f"{self.folder} holds a study {saved.get('name')} with other {', '.join(differing)}; run it as it was "
                f"begun (budget {self.budget_begun}), or choose another folder"
            )
        if changed:
            write_text(self.folder / "study.yaml", yaml.safe_dump(given, sort_keys=False))

    def _begun(self) -> dict[str, Any]:
        """What the folder says of the study that it holds; empty before one was begun."""
        place = self.folder / "study.yaml"
        if not place.exists():
            return {}
        try:
            content = yaml.safe_load(read_text(place))
        except (UnicodeDecodeError, yaml.YAMLError):
            content = None
        if not isinstance(content, dict):
            raise DataError(f"{place} is damaged; remove it, and run the study again")
        return content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if part is not None}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
