"""What each head gains over logistic regression, balanced and not, from the records of `heads.py`.

    python benchmarks/heads_picture.py results/heads/table-* --out docs/images/heads.png

One row of panels for each number of shots, one column for each folder of records; paired differences in points, with
95% intervals over tasks. The axis is linear up to 5 points and logarithmic beyond, for losses of 20 and gains of 0.5
stand side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kshot.files import read_json

_BALANCES = {"balanced": ("o", "C0"), "dirichlet": ("s", "C1")}
_LINEAR = 5.0  # points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="folders that heads.py record wrote")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tables = {read_json(folder / "table.json")["features"]: records_of(folder) for folder in options.tables}
    names = {head: record for records in tables.values() for head, record in records.items()}
    heads = sorted(names, key=lambda head: names[head]["transductive"])
    size = (2.4 + 2.9 * len(tables), (0.24 * len(heads) + 0.9) * len(options.shots))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(options.shots), len(tables), sharex=True, sharey=True, squeeze=False)
    for row, shots in zip(panels, options.shots):
        for axis, (title, records) in zip(row, tables.items()):
            draw(axis, records, heads, shots)
            axis.set_title(f"{title}, {shots}-shot", fontsize=9)
    panels[0, 0].set_yticks(
        range(len(heads)), [f"{'* ' if names[head]['transductive'] else ''}{head}" for head in heads]
    )
    panels[0, 0].invert_yaxis()
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(
        "accuracy minus that of logistic regression, points (* looks at all query images together)", fontsize=9
    )
    figure.savefig(options.out, dpi=110)


def records_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a folder, by head; the reference, which gains nothing over itself, is left out."""
    records = {path.stem.split("-", 1)[1]: read_json(path) for path in sorted(folder.glob("[0-9]*.json"))}
    return {head: record for head, record in records.items() if record["gains"]}


def draw(axis: Axes, records: dict[str, dict[str, Any]], heads: list[str], shots: int) -> None:
    """The gains of all heads at one number of shots."""
    for number, (balance, (marker, color)) in enumerate(_BALANCES.items()):
        column = f"{shots}-shot {balance}"
        known = [(heads.index(head), record["gains"][column]) for head, record in records.items()]
        axis.errorbar(
            [gain["mean"] for _, gain in known],
            [place + 0.3 * (number - 0.5) for place, _ in known],
            xerr=[gain["ci95"] for _, gain in known],
            fmt=marker,
            color=color,
            markersize=3.5,
            label=f"{balance} queries",
        )
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=_LINEAR, linscale=2)
    ticks = [-20, -5, -2, 0, 2, 5, 20]
    axis.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks], fontsize=7)
    axis.grid(axis="x", linewidth=0.3)


if __name__ == "__main__":
    main()
