"""How the pictures of the experiments look: curves with their 95% intervals, and lines of an expected slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

# Okabe and Ito's colours, each with a marker of its own
STYLES: Sequence[dict[str, Any]] = (
    {"color": "#0072B2", "marker": "o"},
    {"color": "#D55E00", "marker": "s"},
    {"color": "#009E73", "marker": "^"},
    {"color": "#CC79A7", "marker": "D"},
    {"color": "#E69F00", "marker": "v"},
)
_GREY = "#666666"


def logarithmic(axes: Axes) -> None:
    """Make both axes logarithmic; to be called before anything is drawn."""
    axes.set(xscale="log", yscale="log")


def curve(
    axes: Axes, x: ArrayLike, mean: ArrayLike, *, ci95: ArrayLike, label: str, style: int = 0, line: str = "-"
) -> None:
    """A curve through means (P,) with a band of their 95% intervals.

    On a logarithmic axis the band is that of the logarithm, ``mean * exp(± ci95 / mean)`` (delta method): the interval
    ``mean ± ci95`` of a few seeds may reach below 0, which such an axis cannot show.

    Parameters
    ----------
    axes
        Where to draw, with its scale set.
    x
        Places (P,).
    mean, ci95
        Means and half-widths of their intervals, (P,); a half-width of nan is drawn as none.
    label
        Name in the legend.
    style
        Which of `STYLES`.
    line
        Line style of matplotlib.
    """
    look = STYLES[style % len(STYLES)]
    means, margins = np.asarray(mean, np.float64), np.nan_to_num(np.asarray(ci95, np.float64))
    if axes.get_yscale() == "log":
        factors = np.exp(margins / means)
        low, high = means / factors, means * factors
    else:
        low, high = means - margins, means + margins
    axes.plot(x, means, label=label, ms=4, lw=1.4, ls=line, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=0.18, lw=0)


def slope(axes: Axes, x: ArrayLike, *, exponent: float, through: tuple[float, float]) -> None:
    """A dotted line of slope `exponent` in logarithmic axes, through a point (x, y)."""
    points = np.asarray(x, np.float64)
    values = through[1] * (points / through[0]) ** exponent
    axes.plot(points, values, color=_GREY, ls=":", lw=1.2, label=f"slope {exponent:g}")


def finish(axes: Axes, title: str, *, xlabel: str, ylabel: str) -> None:
    """Title, labels, legend and a light grid."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", lw=0.7, which="both" if axes.get_yscale() == "log" else "major")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8.5)
