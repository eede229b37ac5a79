"""One self-contained HTML page about runs: the table, the curves, the protocol and the configuration."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import yaml
from matplotlib.figure import Figure

from kshot.errors import DataError
from kshot.evaluation.results import Evaluation
from kshot.measures import Statistics
from kshot.report import pictures
from kshot.report.published import row_of
from kshot.report.race import paces_of, race_picture, time_columns
from kshot.report.tables import Row, notes, seeds_line, table_columns
from kshot.runs.config import read_config
from kshot.runs.readers import groups_by_seed, read_evaluations, read_metrics

_OWN = "the learner's own"
_STYLE = """
:root { color-scheme: light dark;
        --line: #d9d9d9; --soft: #6b6b6b; --back: #ffffff; --text: #1c1c1c; --accent: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3a3a; --soft: #a0a0a0; --back: #161616; --text: #ececec; --accent: #56b4e9; }
  img { background: #ffffff; border-radius: 4px; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
       max-width: 62rem; margin: 3rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.lead, .notes { color: var(--soft); } .notes { font-size: .9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .5rem .9rem .5rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
         font-variant-numeric: tabular-nums; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; } th:first-child, td:first-child { text-align: left; }
td:first-child { font-weight: 600; } img { width: 100%; height: auto; display: block; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; }
.race { max-width: 40rem; }
details { border-bottom: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; color: var(--accent); }
pre { font-size: .85rem; overflow-x: auto; }
"""


_Key = tuple[int, str, str, str, str, str, int, int, int, int]


def page(runs: Sequence[Path]) -> str:
    """The page as HTML, pictures included; rows are paired with the first run.

    Raises CheckpointError for a folder that is no run, DataError where the runs share no evaluation.
    """
    by_run = _rows(runs)
    rows = [row for several in by_run for row in several]
    alike = [zip(*(by_run[position] for position in members)) for members in groups_by_seed(runs)]
    lines = notes(rows) + [seeds_line(rows_alike) for several in alike for rows_alike in several]
    curves = [_curve(run) for run in runs if (run / "metrics.csv").exists()]
    configurations = [_details(run.name, yaml.safe_dump(read_config(run), sort_keys=False)) for run in runs]
    body = [
        "<h1>Few-shot learning: results</h1>",
        f'<p class="lead">{len(runs)} runs, measured on the same tasks.</p>' if len(runs) > 1 else "",
        f'<div class="wide">{_table(table_columns(rows, paired=len(rows) > 1))}</div>',
        *(f'<p class="notes">{html.escape(line)}</p>' for line in lines),
        "<h2>Training</h2>",
        f'<div class="curves">{"".join(curves)}</div>',
        _race(runs),
        "<h2>Configuration</h2>",
        *configurations,
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    content = "\n".join(filter(None, body))
    title = "<title>kshot results</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}</head><body>{content}</body></html>\n'


def _rows(runs: Sequence[Path]) -> list[list[Row]]:
    """What all runs were measured on alike: by the learners' own adaptations if possible, and with the most tasks.

    A row for each kind of statistics that a run was measured with.
    """
    configs = [read_config(run) for run in runs]
    saved: list[dict[_Key, dict[Statistics, Evaluation]]] = []
    for run in runs:
        saved.append({})
        for result in read_evaluations(run):
            for key in _shared_keys(result):
                saved[-1].setdefault(key, {})[result.protocol.statistics] = result
    shared = set(saved[0]).intersection(*saved[1:])
    if not shared:
        raise DataError(
            f"{', '.join(map(str, runs))} have no evaluation on the same tasks; "
            f"run: kshot compare {' '.join(map(str, runs))}"
            if len(runs) > 1
            else f"{runs[0]} has no evaluation; run: kshot evaluate {runs[0]}"
        )
    family = max(shared, key=lambda key: (key[1] == _OWN, key[-1], key[2] == "float32", key))[1:]
    keys = sorted(key for key in shared if key[1:] == family)
    rows = []
    for run, config, results in zip(runs, configs, saved):
        kinds = [kind for kind in get_args(Statistics) if all(kind in results[key] for key in keys)]
        names = {kind: run.name if kind == "running" else f"{run.name}, {kind}" for kind in kinds}
        rows.append([row_of(names[kind], config, [results[key][kind] for key in keys]) for kind in kinds])
    return rows


def _shared_keys(result: Evaluation) -> list[_Key]:
    """The number of shots, and then what results in one table have in common, the number of tasks last.

    Rows may have the same adaptation, or each its learner's own, so that a result may have a key of either kind.
    """
    at = result.protocol
    tasks = (at.dataset, at.split, at.drawn, at.ways, at.queries, at.seed, at.tasks)
    adaptations = [result.adaptation, *([_OWN] if result.own_adaptation else [])]
    return [(at.shots, adaptation, result.precision, *tasks) for adaptation in adaptations]


def _table(columns: Mapping[str, Sequence[str]]) -> str:
    header = "".join(f"<th>{html.escape(name or 'run')}</th>" for name in columns)
    cells = zip(*columns.values())
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in cells)
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _curve(run: Path) -> str:
    return _image(pictures.learning_curves(read_metrics(run), run.name), f"learning curves of {run.name}")


def _race(runs: Sequence[Path]) -> str:
    """Validation accuracy against the time of training, where there are several runs to compare."""
    paces = paces_of(runs)
    if len(paces) < 2:
        return ""
    note = (
        "Each run on the machine that it was trained on. A time is that of the first validation with at least this "
        "accuracy, validations not counted. Left out are runs with validation tasks of another kind, and "
        "TSA-MAML's, whose stages before the groups are timed elsewhere."
    )
    picture = _image(race_picture(paces), "validation accuracy against minutes of training")
    table = f'<div class="wide">{_table(time_columns(paces))}</div>'
    return f'<h2>Time</h2><div class="race">{picture}</div>{table}<p class="notes">{note}</p>'


def _image(figure: Figure, text: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    source = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{source}">'


def _details(title: str, text: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"
