"""What an experiment is: options in, findings out; ``experiments`` maps the names that the command line knows."""

from __future__ import annotations

import base64
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from kshot.errors import ConfigError
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
        return "\n".join([self.verdict, "", self._head("simple"), *self._left_out()])

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the head of the table and the picture."""
        with io.BytesIO() as image:
            self.figure().savefig(image, format="png", dpi=90)
            picture = base64.b64encode(image.getvalue()).decode()
        texts = [f"<p>{html.escape(text)}</p>" for text in (self.verdict, *self._left_out())]
        return "\n".join([texts[0], self._head("html"), *texts[1:], f'<img src="data:image/png;base64,{picture}">'])

    def _head(self, layout: str) -> str:
        """The first lines and columns of the table."""
        titles = list(self.rows[0])[:_COLUMNS_SHOWN]
        cells = [[_cell(row[title]) for title in titles] for row in self.rows[:_ROWS_SHOWN]]
        return tabulate(cells, titles, tablefmt=layout, disable_numparse=True)

    def _left_out(self) -> list[str]:
        """A line on what the head of the table leaves out, if anything."""
        rows, columns = len(self.rows) - _ROWS_SHOWN, len(self.rows[0]) - _COLUMNS_SHOWN
        parts = [f"{count} more {name}" for name, count in (("rows", rows), ("columns", columns)) if count > 0]
        return [f"({' and '.join(parts)} in .rows)"] if parts else []

    def csv(self) -> str:
        """The rows as CSV, with all digits of every number."""
        return csv_text(self.rows)

    def figure(self) -> Figure:
        """The picture."""
        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure)
        return figure


def over_seeds(seeds: Sequence[int], *, fitted: bool = False) -> str:
    """What the intervals of an experiment are over, for its verdict: ``95% intervals over 2 seeds (0 1)``.

    Parameters
    ----------
    seeds
        The seeds of the repetitions; one alone has no interval.
    fitted
        Whether there are exponents among the values, whose interval is then that of the fit.
    """
    if len(seeds) > 1:
        return f"95% intervals over {len(seeds)} seeds ({' '.join(map(str, seeds))})"
    exponents = " (those of exponents are of the fit alone)" if fitted else ""
    return f"no intervals over seeds, since there is one ({seeds[0]}){exponents}"


def check_fit(seeds: Sequence[int], **values: Sequence[int]) -> None:
    """ConfigError unless there are at least three values, such as depths, to fit a power law to, and a seed."""
    for name, given in values.items():
        if len(given) < 3 or not seeds:
            raise ConfigError(
                f"the fit needs at least three {name} and one seed, not {list(given)} and {list(seeds)}; give more"
            )


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
