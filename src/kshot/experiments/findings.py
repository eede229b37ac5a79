"""What an experiment is: options in, findings out; ``experiments`` maps the names that the command line knows."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kshot.errors import ConfigError
from kshot.registry import Registry


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    rows: the table, a mapping from column to value for each line; all lines have the same columns. A measured value has
        its 95% interval (half-width) in a column beside it.
    verdict: one line: what was expected, what was found, with interval, on how many seeds.
    draw: draws the picture onto an empty figure.
    size: width and height of that figure, in inches.
    """

    rows: Sequence[Mapping[str, float | int | str]]
    verdict: str
    draw: Callable[[Figure], None]
    size: tuple[float, float] = (6.4, 4.0)

    def csv(self) -> str:
        """The rows as CSV, numbers with all their digits."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def figure(self) -> Figure:
        """The picture."""
        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure)
        return figure


class Experiment(ABC):
    """A statement of the papers, put to the test; the constructor's arguments are its options, seeds included.

    The first line of a subclass's docstring is what `kshot theory --help` says about it, and its lines ``name: text``
    are the help of its options.
    """

    options: dict[str, Any]

    @abstractmethod
    def run(self, progress: bool = False) -> Findings:
        """Compute the findings; the same options give the same findings.

        progress: show a bar on the terminal.
        """


experiments: Registry[Experiment] = Registry("experiment")


def check_positive(**options: float | Sequence[float]) -> None:
    """Raise ConfigError naming the first option that holds a number that is not above zero, or no number at all."""
    for name, value in options.items():
        values = value if isinstance(value, Sequence) else [value]
        if not values:
            raise ConfigError(f"{name.replace('_', '-')} is empty; give one value at least")
        for number in values:
            if not number > 0:
                raise ConfigError(f"{name.replace('_', '-')} is {number}, but must be positive")
