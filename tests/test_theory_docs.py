"""docs/theory.md and examples/theory.ipynb do what they say: every command, snippet and cell runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from kshot.cli import main
from kshot.experiments import experiments
from kshot.experiments.findings import Experiment, Findings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
INDENTED = re.findall(r"^    kshot (theory [^#\n]*)", PAGE, re.MULTILINE)
INLINE = [" ".join(command.split()) for command in re.findall(r"`kshot\s+(theory[^`]*)`", PAGE)]
COMMANDS = list(dict.fromkeys(command.strip() for command in [*INDENTED, *INLINE]))
FAST = {"theory --help", "theory closeness-depth --help", "theory taxonomy"}


def test_the_commands_of_the_page_are_found():
    assert {command.split()[1] for command in COMMANDS} == {*experiments, "--help"}
    assert set(COMMANDS) >= FAST


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_known(command, monkeypatch, tmp_path):
    ran = []

    def run(experiment: Experiment, **options: bool) -> Findings:
        ran.append(experiment)
        return Findings([{"value": 1}], "a verdict", lambda figure: None)

    for experiment in experiments.values():
        monkeypatch.setattr(experiment, "run", run)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    assert len(ran) == (0 if "--help" in command else 1)


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=[] if command in FAST else pytest.mark.slow) for command in COMMANDS]
)
def test_the_commands_of_the_page_run(command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    name = command.split()[1]
    if "--help" not in command:
        verdict = json.loads((tmp_path / f"theory/{name}.json").read_text())["verdict"]
        assert verdict in capsys.readouterr().out


def test_the_snippets_of_the_page_run():
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) == 1
    names: dict = {}
    exec(snippets[0], names)
    assert names["mtl"].values.shape == (20, 10)
    facts = json.loads((ROOT / "results/theory/facts.json").read_text(encoding="utf-8"))
    assert names["mtl"].condition == pytest.approx(facts["condition-mtl"]["value"], rel=0.01)
    without_inner_loop = names["predict_anil"](names["partial"](names["kernels"], depth=10), names["tasks"])
    assert without_inner_loop.condition == pytest.approx(facts["condition-anil"]["value"], rel=0.01)


def test_the_files_that_the_page_names_exist():
    linked = [ROOT / "docs" / name for name in re.findall(r"\]\(([^)#:]+)\)", PAGE)]
    quoted = [ROOT / name for name in re.findall(r"`((?:src|benchmarks|examples)/[\w/.]+)`", PAGE)]
    assert linked
    assert quoted
    assert [path for path in linked + quoted if not path.exists()] == []


def cells() -> list[str]:
    notebook = json.loads((ROOT / "examples/theory.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "outputs are not kept in git"
    return ["".join(cell["source"]) for cell in code]


def test_the_cells_of_the_notebook_are_python():
    endings = [ast.parse(source).body[-1] for source in cells()]
    assert all(isinstance(ending, ast.Expr) for ending in endings), "each shows what it has found"


@pytest.mark.slow
def test_the_notebook_shows_five_pictures():
    names: dict = {}
    shown = []
    for source in cells():
        *statements, last = source.rstrip().split("\n")
        exec("\n".join(statements), names)
        value = eval(last, names)
        shown += [value] if isinstance(value, Findings) else []
    assert len(shown) == 5
    assert all("<img" in findings._repr_html_() for findings in shown)
