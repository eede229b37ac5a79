"""What an experiment is: options in, findings out; ``experiments`` maps the names that the command line knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from kshot.files import csv_text
from kshot.registry import Registry

Record = dict[str, float | int | str]  # a line of a table, by column

_ROWS_SHOWN, _COLUMNS_SHOWN = 5, 8  # in the repr


@dataclass(frozen=True, repr=False)
class Findings:
    """What an experiment found: a table, a verdict and a picture.

    Attributes
    ----------
    rows
        The table: one mapping from column to value per line, with the same columns in every line. Each measured value
        has the half-width of its 95% interval in a column next to it.
    verdict
        One line: what was expected and what was found, with interval, protocol and seeds.
    draw
        Draws the picture onto an empty figure.
    size
        Width and height of that figure, in inches.
    """

    rows: Sequence[Mapping[str, float | int | str]]
    verdict: str
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (6.4, 4.0)

    def __repr__(self) -> str:
        titles = list(self.rows[0])[:_COLUMNS_SHOWN]
        cells = [[_cell(row[title]) for title in titles] for row in self.rows[:_ROWS_SHOWN]]
        lines = [self.verdict, "", tabulate(cells, titles, disable_numparse=True)]
        left_out = [
            f"{count - shown} more {name}"
            for name, count, shown in (
                ("rows", len(self.rows), len(cells)),
                ("columns", len(self.rows[0]), len(titles)),
            )
            if count > shown
        ]
        return "\n".join([*lines, *([f"({' and '.join(left_out)} in .rows)"] if left_out else [])])

    def csv(self) -> str:
        """The rows as CSV, with all digits of every number."""
        return csv_text(self.rows)

    def figure(self) -> Figure:
        """The picture."""
        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure)
        return figure


def over_seeds(seeds: Sequence[int]) -> str:
    """What the intervals of an experiment are over, for its verdict: ``95% intervals over 2 seeds (0 1)``."""
    return f"95% intervals over {len(seeds)} seeds ({' '.join(map(str, seeds))})"


def _cell(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Experiment(ABC):
    """A statement of the papers, put to the test; the constructor's arguments are its options, seeds included.

    The first line of a subclass's docstring is what `kshot theory --help` says about the experiment, and the section
    "Parameters" is the help of its options.
    """

    options: dict[str, Any]

    @abstractmethod
    def run(self, *, progress: bool = False) -> Findings:
        """Compute the findings; the same options give the same findings.

        Parameters
        ----------
        progress
            Show a bar on the terminal.
        """


experiments: Registry[Experiment] = Registry("experiment")
