"""What the rows of the excess-risk experiment say: its verdict and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kshot.intervals import with_interval

MAML, TSA_MAML = "MAML", "TSA-MAML"
COIN, BIASED_COIN = "fair coin", "coin with 70% heads"
_COLOURS = {MAML: "#D55E00", TSA_MAML: "#0072B2"}
_MEASURED, _LARGER, _BOUND, _CONVEX = "-", "-.", "--", ":"
_STYLES = {
    "measured": _MEASURED,
    "E|grad L|$^2$": _LARGER,
    "bound of the theorem": _BOUND,
    "bound for convex losses": _CONVEX,
}

Cells = Mapping[str, float | int | str]


def verdict(rows: Sequence[Cells], protocol: str) -> str:
    """One line: in which cells the bounds hold, how loose they are, and one initialisation against several."""
    mixture = [row for row in rows if row["regression"] not in (COIN, BIASED_COIN)]
    names = dict.fromkeys(str(row["regression"]) for row in mixture)
    families = {name: _select(mixture, regression=name) for name in names}
    first_term = _exceeding(mixture, "generalization_gap", "theorem1_generalization")
    parts = [
        f"Theorem 1 {_holds(mixture, 'excess_risk', 'theorem1')} of the mixture ({protocol}); bound / excess risk of "
        f"{MAML} from the fewest to the most steps: "
        + "; ".join(f"{name} {_looseness(of_family)}" for name, of_family in families.items()),
        f"Its first term alone {_holds(mixture, 'generalization_gap', 'theorem1_generalization')}"
        + "".join(f" ({_place(row)}: {_with_ci(row, 'generalization_gap')})" for row in first_term[:1]),
        f"{TSA_MAML} against {MAML}: "
        + "; ".join(f"{name} {_comparison(of_family)}" for name, of_family in families.items()),
        _theorem2(rows, mixture),
    ]
    return ". ".join(parts) + "."


def _theorem2(rows: Sequence[Cells], mixture: Sequence[Cells]) -> str:
    """Both readings of Theorem 2, on the mixture and on coins."""
    coins = [row for row in rows if row["regression"] in (COIN, BIASED_COIN)]
    failures = []
    for name in (COIN, BIASED_COIN):
        above = _exceeding(_select(coins, regression=name), "squared_gradient", "theorem2")
        if above:
            failures.append(f"{name}: from K = {min(int(row['shots']) for row in above)} on")
    return (
        f"Theorem 2, of E_T |E_D[grad L]|^2, {_holds(mixture, 'squared_expected_gradient', 'theorem2')} of the "
        f"mixture, and {_holds(coins, 'squared_expected_gradient', 'theorem2')} of one step on K tosses of a coin "
        f"(exact); as a bound of the larger E|grad L|^2 it {_holds(mixture, 'squared_gradient', 'theorem2')} of the "
        "mixture" + (f", and FAILS on tosses ({'; '.join(failures)})" if failures else "")
    )


def draw(figure: Figure, rows: Sequence[Cells], protocol: str) -> None:
    """Theorem 1 and its two terms, one column per regression; below them Theorem 2, for the mixture and the coins."""
    figure.suptitle(protocol, fontsize=10)
    axes = figure.subplots(4, 2)
    for column, regression in enumerate(("linear", "logistic")):
        of_family = _select(rows, regression=regression)
        _panel(axes[0, column], of_family, f"{regression}, Theorem 1: excess risk", "excess_risk", "theorem1", "convex")
        gap = ("generalization_gap", "theorem1_generalization", "convex_generalization")
        _panel(axes[1, column], of_family, f"{regression}, its first term: L - L$_D$", *gap)
        gap = ("optimization_gap", "theorem1_optimization", "convex_optimization")
        _panel(axes[2, column], of_family, f"{regression}, its second term: L$_D$ - L$_D$(optimum)", *gap)
        # the exponential of the theorem leaves the panel: it would flatten all that was measured
        axes[0, column].set(yscale="log", ylim=(0.03, 1e3))
        axes[1, column].set_yscale("symlog", linthresh=0.1)
        axes[1, column].set_ylim(-0.05, 1e3)
    of_family = _select(rows, regression="logistic")
    for learner, colour in _COLOURS.items():
        of_learner = _select(of_family, learner=learner)
        values = _column(of_learner, "squared_gradient")
        axes[3, 0].plot(_column(of_learner, "steps"), values, color=colour, ls=_LARGER, lw=1.1)
    title = "logistic, Theorem 2: E$_T$ |E$_D$[grad L]|$^2$"
    _panel(axes[3, 0], of_family, title, "squared_expected_gradient", "theorem2")
    axes[3, 0].set(yscale="log", ylim=(1e-4, 1e2))
    _draw_coins(axes[3, 1], rows)
    handles = [Line2D([], [], color=colour, marker="o", ms=3.5, label=name) for name, colour in _COLOURS.items()]
    handles += [Line2D([], [], color="black", ls=style, label=name) for name, style in _STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles) // 2, frameon=False, fontsize=9)


def _panel(axes: Axes, rows: Sequence[Cells], title: str, measured: str, *bounds: str) -> None:
    """A measured column against q for both learners, with its bounds."""
    for learner, colour in _COLOURS.items():
        of_learner = _select(rows, learner=learner)
        steps, values, ci95 = (_column(of_learner, name) for name in ("steps", measured, f"{measured}_ci95"))
        axes.errorbar(steps, values, ci95, color=colour, marker="o", ms=3.5, lw=1.4, capsize=2)
        for bound, style in zip(bounds, (_BOUND, _CONVEX)):
            axes.plot(steps, _column(of_learner, bound), color=colour, ls=style, lw=1.1)
    _finish(axes, title, "gradient steps q")


def _draw_coins(axes: Axes, rows: Sequence[Cells]) -> None:
    """Theorem 2 on tosses: both readings, and the bound; the smaller reading is 0 for a fair coin."""
    for name, colour, marker in ((COIN, "black", "o"), (BIASED_COIN, "#009E73", "s")):
        of_coin = _select(rows, regression=name)
        tosses = _column(of_coin, "shots")
        if name != COIN:
            values = _column(of_coin, "squared_expected_gradient")
            axes.plot(tosses, values, color=colour, marker=marker, ms=3.5, lw=1.4, ls=_MEASURED)
        axes.plot(tosses, _column(of_coin, "squared_gradient"), color=colour, ls=_LARGER, lw=1.1)
        axes.plot(tosses, _column(of_coin, "theorem2"), color=colour, ls=_BOUND, lw=1.1, label=name)
    axes.set(xscale="log", yscale="log")
    axes.legend(frameon=False, fontsize=8, title="one step from the optimum", title_fontsize=8)
    _finish(axes, "tosses of a coin, Theorem 2 (fair coin: E$_D$[grad L] = 0)", "tosses K")


def _finish(axes: Axes, title: str, x: str) -> None:
    """Title, label and a light grid."""
    axes.set_xlabel(x, fontsize=9)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", lw=0.7)


def _select(rows: Sequence[Cells], **labels: float | int | str) -> list[Cells]:
    """The rows that have these labels."""
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]


def _column(rows: Sequence[Cells], name: str) -> list[float]:
    """One column of the rows."""
    return [float(row[name]) for row in rows]


def _exceeding(rows: Sequence[Cells], measured: str, bound: str) -> list[Cells]:
    """The rows in which the whole interval of a measured value lies above its bound."""
    return [row for row in rows if float(row[measured]) - float(row[f"{measured}_ci95"]) > float(row[bound])]


def _holds(rows: Sequence[Cells], measured: str, bound: str) -> str:
    """In how many cells a bound is broken, in words."""
    broken = len(_exceeding(rows, measured, bound))
    return f"FAILS in {broken} of {len(rows)} cells" if broken else f"holds in all {len(rows)} cells"


def _place(row: Cells) -> str:
    """Which cell a row is."""
    return f"{row['learner']}, {row['regression']}, q = {row['steps']}"


def _looseness(rows: Sequence[Cells]) -> str:
    """How many times the excess risk the bounds are, after the fewest and after the most steps."""
    of_maml = _select(rows, learner=MAML)

    def times(bound: str) -> str:
        column = f"{bound}_over_risk"
        ends = (of_maml[0], of_maml[-1])
        # an exact ratio has no interval, but rounding errors of one
        values = ((float(row[column]), float(row[f"{column}_ci95"])) for row in ends)
        return " to ".join(f"{value:.3g} ± {ci95 if ci95 > 1e-9 * value else 0:.1g}" for value, ci95 in values)

    return f"{times('theorem1')}, in its convex form {times('convex')}"


def _comparison(rows: Sequence[Cells]) -> str:
    """Distances and least risks of several initialisations against one."""
    several, one = (_select(rows, learner=learner) for learner in (TSA_MAML, MAML))
    distances = " against ".join(_with_ci(cells[0], "squared_distance") for cells in (several, one))
    least = (min(cells, key=lambda row: float(row["excess_risk"])) for cells in (several, one))
    risks = " against ".join(f"{_with_ci(row, 'excess_risk')} at q = {row['steps']}" for row in least)
    return f"E|theta* - theta*_T|^2 {distances}, least excess risk {risks}"


def _with_ci(row: Cells, name: str) -> str:
    """A measured value with its interval."""
    return with_interval(float(row[name]), float(row[f"{name}_ci95"]), ".3f")
