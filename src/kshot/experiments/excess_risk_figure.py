"""What the rows of the excess-risk experiment say: its verdict and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

MAML, TSA_MAML, COIN = "MAML", "TSA-MAML", "fair coin"
_COLOURS = {MAML: "#D55E00", TSA_MAML: "#0072B2"}
_STYLES = {"measured": "-", "bound of the theorem": "--", "bound for convex losses": ":"}

Row = Mapping[str, float | int | str]


def verdict(rows: Sequence[Row], protocol: str) -> str:
    """One line: where the bounds hold, how loose they are, and one initialisation against several."""
    coin = _select(rows, regression=COIN)
    mixture = [row for row in rows if row["regression"] != COIN]
    names = dict.fromkeys(str(row["regression"]) for row in mixture)
    families = {name: _select(mixture, regression=name) for name in names}
    first_term = _exceeding(mixture, "generalization_gap", "theorem1_generalization")
    tosses = [int(row["shots"]) for row in _exceeding(coin, "squared_gradient", "theorem2")]
    parts = [
        f"Theorem 1 {_holds(mixture, 'excess_risk', 'theorem1')} of the mixture ({protocol}); bound / excess risk of "
        f"{MAML} from the fewest to the most steps: "
        + "; ".join(f"{name} {_looseness(ours)}" for name, ours in families.items()),
        f"Its first term alone {_holds(mixture, 'generalization_gap', 'theorem1_generalization')}"
        + "".join(f" ({_place(row)}: {_with_ci(row, 'generalization_gap')})" for row in first_term[:1]),
        f"{TSA_MAML} against {MAML}: " + "; ".join(f"{name} {_comparison(ours)}" for name, ours in families.items()),
        f"Theorem 2 {_holds(mixture, 'squared_gradient', 'theorem2')} of the mixture"
        + (f", and FAILS for a step on K tosses of a fair coin from K = {min(tosses)} on" if tosses else ""),
    ]
    return ". ".join(parts) + "."


def draw(figure: Figure, rows: Sequence[Row], protocol: str) -> None:
    """Theorem 1 and its two terms, a column for each regression; below them Theorem 2, for the mixture and the coin."""
    figure.suptitle(f"{protocol}; 95% intervals over seeds", fontsize=10)
    axes = figure.subplots(4, 2)
    for column, regression in enumerate(("linear", "logistic")):
        ours = _select(rows, regression=regression)
        _panel(axes[0, column], ours, f"{regression}, Theorem 1: excess risk", "excess_risk", "theorem1", "convex")
        gap = ("generalization_gap", "theorem1_generalization", "convex_generalization")
        _panel(axes[1, column], ours, f"{regression}, its first term: L - L$_D$", *gap)
        gap = ("optimization_gap", "theorem1_optimization", "convex_optimization")
        _panel(axes[2, column], ours, f"{regression}, its second term: L$_D$ - L$_D$(optimum)", *gap)
        # The exponential of the theorem leaves the panel, or it would flatten all that was measured.
        axes[0, column].set(yscale="log", ylim=(0.03, 1e3))
        axes[1, column].set_yscale("symlog", linthresh=0.1)
        axes[1, column].set_ylim(-0.05, 1e3)
    _panel(
        axes[3, 0],
        _select(rows, regression="logistic"),
        "logistic, Theorem 2: E|grad L|$^2$",
        "squared_gradient",
        "theorem2",
    )
    axes[3, 0].set(yscale="log", ylim=(1e-3, 1e2))
    _draw_coin(axes[3, 1], _select(rows, regression=COIN))
    handles = [Line2D([], [], color=colour, marker="o", ms=3.5, label=name) for name, colour in _COLOURS.items()]
    handles += [Line2D([], [], color="black", ls=style, label=name) for name, style in _STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


def _panel(axes: Axes, rows: Sequence[Row], title: str, measured: str, *bounds: str) -> None:
    """A measured column against q for both learners, with its bounds."""
    for learner, colour in _COLOURS.items():
        ours = _select(rows, learner=learner)
        steps, values, ci95 = (_column(ours, name) for name in ("steps", measured, f"{measured}_ci95"))
        axes.errorbar(steps, values, ci95, color=colour, marker="o", ms=3.5, lw=1.4, capsize=2)
        for bound, style in zip(bounds, list(_STYLES.values())[1:]):
            axes.plot(steps, _column(ours, bound), color=colour, ls=style, lw=1.1)
    _finish(axes, title, "gradient steps q")


def _draw_coin(axes: Axes, rows: Sequence[Row]) -> None:
    tosses = _column(rows, "shots")
    axes.plot(tosses, _column(rows, "squared_gradient"), color="black", marker="o", ms=3.5, lw=1.4)
    axes.plot(tosses, _column(rows, "theorem2"), color="black", ls="--", lw=1.1)
    axes.set(xscale="log", yscale="log")
    _finish(axes, "one step on K tosses of a fair coin, Theorem 2: E|grad L|$^2$", "tosses K")


def _finish(axes: Axes, title: str, x: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e4e4", lw=0.7)


def _select(rows: Sequence[Row], **labels: float | int | str) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def _exceeding(rows: Sequence[Row], measured: str, bound: str) -> list[Row]:
    """The rows where the whole interval of a measured value lies above its bound."""
    return [row for row in rows if float(row[measured]) - float(row[f"{measured}_ci95"]) > float(row[bound])]


def _holds(rows: Sequence[Row], measured: str, bound: str) -> str:
    broken = len(_exceeding(rows, measured, bound))
    return f"FAILS in {broken} of {len(rows)} cells" if broken else f"holds in all {len(rows)} cells"


def _place(row: Row) -> str:
    return f"{row['learner']}, {row['regression']}, q = {row['steps']}"


def _looseness(rows: Sequence[Row]) -> str:
    """How many times the excess risk the bounds are, after the fewest steps and after the most."""
    ours = _select(rows, learner=MAML)

    def times(bound: str) -> str:
        return " to ".join(f"{float(row[bound]) / float(row['excess_risk']):.2g}" for row in (ours[0], ours[-1]))

    return f"{times('theorem1')}, in its convex form {times('convex')}"


def _comparison(rows: Sequence[Row]) -> str:
    several, one = (_select(rows, learner=learner) for learner in (TSA_MAML, MAML))
    distances = " against ".join(_with_ci(ours[0], "squared_distance") for ours in (several, one))
    least = (min(ours, key=lambda row: float(row["excess_risk"])) for ours in (several, one))
    risks = " against ".join(f"{_with_ci(row, 'excess_risk')} at q = {row['steps']}" for row in least)
    return f"E|theta* - theta*_T|^2 {distances}, least excess risk {risks}"


def _with_ci(row: Row, name: str) -> str:
    return f"{float(row[name]):.3f} ± {float(row[f'{name}_ci95']):.3f}"
