"""One self-contained HTML page about runs: the tables, the curves, the protocol and the configuration."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from matplotlib.figure import Figure

from kshot.report.content import RunContent, distinctly_named
from kshot.report.curves import learning_curves, race_picture
from kshot.report.explanation import why_training_is_lower
from kshot.report.race import Pace, races_of, time_columns
from kshot.report.sections import check_measured, remarks, sections
from kshot.report.templates import template


@dataclass(frozen=True)
class _Picture:
    """A picture in the page: its PNG in base64, and what it shows for a reader who cannot see it."""

    png: str
    text: str
    note: str = ""


def page(contents: Sequence[RunContent], *, seed_groups: Sequence[Sequence[int]] = ()) -> str:
    """The page as HTML, pictures included.

    Runs that were measured on the same tasks share a table, in which rows are paired with the first one; runs that were
    not, because they are of different datasets for instance, get one table for each kind of tasks, and the page says
    so.

    Parameters
    ----------
    contents
        The runs, in the order of their rows.
    seed_groups
        Positions of runs that differ only in their training seed, for every such group.

    Raises
    ------
    DataError
        If none of the runs was evaluated.
    """
    check_measured(contents)
    named = distinctly_named(contents)
    shown = sections(named, seed_groups)
    return template("page.html").render(
        rows_of=lambda columns: zip(*columns.values()),
        sections=shown,
        lead=f"{len(named)} runs, measured on the same tasks." if len(named) > 1 == len(shown) else "",
        remarks=remarks(named, shown),
        curves=[_curve(content) for content in named if content.metrics is not None],
        races=[(_race(paces), time_columns(paces)) for paces in races_of(named) if len(paces) > 1],
        configurations=[(content.name, yaml.safe_dump(content.config, sort_keys=False)) for content in named],
    )


def _curve(content: RunContent) -> _Picture:
    assert content.metrics is not None
    picture = _png(learning_curves(content.metrics, content.name))
    return _Picture(picture, f"learning curves of {content.name}", why_training_is_lower(content))


def _race(paces: Sequence[Pace]) -> _Picture:
    return _Picture(_png(race_picture(paces)), "validation accuracy against minutes of training")


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return base64.b64encode(file.getvalue()).decode()
