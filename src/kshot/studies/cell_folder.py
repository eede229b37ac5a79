"""The folder of one cell: what it is, its run, and what became of it. Processes on several machines may share it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from kshot.errors import DataError, KshotError
from kshot.files import read_json, write_json, write_text
from kshot.runs import lock
from kshot.runs.run import Run
from kshot.studies.budget import length_of
from kshot.studies.cells import Cell

State = Literal["done", "running", "failed", "begun", "waiting"]


@dataclass(frozen=True)
class Progress:
    """How far a cell is.

    Attributes
    ----------
    state
        "begun" is a cell that was interrupted and goes on when the study is run again.
    share
        The part of its training that is done, 0..1.
    seconds
        Of training so far.
    message
        Of a failure.
    """

    state: State
    share: float = 0.0
    seconds: float = 0.0
    message: str = ""

    @property
    def seconds_left(self) -> float | None:
        """From the speed so far; None before the first epoch."""
        return self.seconds * (1 - self.share) / self.share if self.share > 0 else None


class CellFolder:
    """cell.yaml (what it is), run/ (the run), sittings.json, result.json or failure.json, and log.txt.

    Parameters
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run_path = self.path / "run"
        self.result_path = self.path / "result.json"
        self.failure_path = self.path / "failure.json"
        self.log_path = self.path / "log.txt"

    @property
    def name(self) -> str:
        """That of the cell."""
        return self.path.name

    def write(self, cell: Cell) -> None:
        """Say what the cell is; nothing is written if the file says so already."""
        text = yaml.safe_dump(cell.plain(), sort_keys=False)
        place = self.path / "cell.yaml"
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            write_text(place, text)

    @property
    def planned(self) -> bool:
        """Whether the folder says what the cell is."""
        return (self.path / "cell.yaml").exists()

    def read(self) -> Cell:
        """What the cell is; DataError if the file is damaged."""
        place = self.path / "cell.yaml"
        try:
            return Cell(**yaml.safe_load(place.read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{place} is damaged ({error}); remove it, and run the study again") from error

    def result(self) -> dict[str, Any] | None:
        """What was measured and what it cost; None before the end."""
        return self._read(self.result_path)

    def failure(self) -> dict[str, Any] | None:
        """The last failure: its message, whether it would repeat itself, and the number of attempts."""
        return self._read(self.failure_path)

    def fail(self, message: str, *, lasting: bool, place: str) -> None:
        """Record a failure."""
        attempts = (self.failure() or {}).get("attempts", 0) + 1
        content = {"message": message, "lasting": lasting, "attempts": attempts, "place": place}
        write_json(self.failure_path, content)

    def forget_failure(self) -> None:
        """Let the cell be tried as if it had never failed."""
        self.failure_path.unlink(missing_ok=True)

    def sittings(self) -> list[dict[str, Any]]:
        """When and where the cell was worked at, one entry per process; one that was killed has no seconds."""
        content = self._read(self.path / "sittings.json")
        return content["sittings"] if content is not None else []

    def write_sittings(self, sittings: list[dict[str, Any]]) -> None:
        """Replace `sittings`."""
        write_json(self.path / "sittings.json", {"sittings": sittings})

    def progress(self) -> Progress:
        """How far the cell is, from its files alone."""
        if self.result_path.exists():
            return Progress("done", 1.0)
        running = lock.is_held(self.path)
        share, seconds = self._trained()
        failure = self.failure()
        if failure is not None and not running:
            return Progress("failed", share, seconds, str(failure["message"]))
        begun: State = "begun" if share > 0 or self.sittings() else "waiting"
        return Progress("running" if running else begun, share, seconds)

    def _trained(self) -> tuple[float, float]:
        """The part of the training that is done, and its seconds."""
        with contextlib.suppress(KshotError, OSError, KeyError, TypeError):
            options = self.read().options
            epochs, _, _ = length_of(options)
            before = 0
            run = Run(self.run_path)
            if "stages" in options:
                before = options["stages"].get("pretraining_epochs") or options["training"]["max_epochs"]
                if not (self.run_path / "metrics.csv").exists():
                    run, before = Run(self.run_path / "pretraining"), 0
            timing = run.timing()
            seconds = timing["seconds"] + timing["validation_seconds"]
            return min(1.0, (before + len(seconds)) / epochs), float(seconds.sum())
        return 0.0, 0.0

    def _read(self, place: Path) -> dict[str, Any] | None:
        try:
            content = read_json(place)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{place} is damaged ({error}); remove it, and run the study again") from error
        if not isinstance(content, dict):
            raise DataError(f"{place} is damaged; remove it, and run the study again")
        return content
