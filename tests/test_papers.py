"""docs/papers.md: every statement of both papers has a file, a test and a state, and none of them is made up."""

from __future__ import annotations

import ast
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

from kshot import recipes
from kshot.learners import learners

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "docs/papers.md").read_text(encoding="utf-8")
COLUMNS = ["statement", "what it says", "file", "test", "state"]
STATES = re.compile(r"computed|needs data [\w ,-]+|needs a GPU")


def rows_of(text: str) -> list[list[str]]:
    """The cells of all tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("|---")]
    return [row for row in cells if row[0] != "statement"]


ROWS = rows_of(TEXT)


@cache
def definitions(path: str) -> set[str]:
    """The names of the functions of a test file."""
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def faults_of(row: list[str]) -> list[str]:
    """What is wrong with a row."""
    if len(row) != len(COLUMNS) or not all(row):
        return [f"{row} has not five cells with something in them"]
    statement, _, file, test, state = row
    faults = [] if STATES.fullmatch(state) else [f"{statement}: {state!r} is no state"]
    if not (REPOSITORY / file.strip("`")).is_file():
        faults.append(f"{statement}: there is no file {file}")
    path, _, name = test.strip("`").partition("::")
    if not (REPOSITORY / path).is_file() or (name and name not in definitions(path)):
        faults.append(f"{statement}: there is no test {test}")
    return faults


def test_every_row_has_a_file_a_test_and_a_state() -> None:
    assert [fault for row in ROWS for fault in faults_of(row)] == []
    assert len(ROWS) >= 326


@pytest.mark.parametrize(
    ("column", "content", "message"),
    [
        (1, "", "not five cells"),
        (2, "`src/kshot/learners/mtl.py`", "no file"),
        (3, "`tests/test_papers.py::test_nothing`", "no test"),
        (3, "`tests/nothing.py`", "no test"),
        (3, "none", "no test none"),
        (4, "missing", "'missing' is no state"),
        (4, "done", "'done' is no state"),
    ],
)
def test_a_row_with_a_fault_is_found(column: int, content: str, message: str) -> None:
    row = list(ROWS[0])
    assert faults_of(row) == []
    row[column] = content
    assert message in faults_of(row)[0]


def equations_named(text: str) -> set[int]:
    """The numbers after "eq.", "eqs." and "equations", ranges included."""
    numbers: set[int] = set()
    for found in re.findall(r"(?:eqs?\.|equations?) ((?:\d+(?:-| to |, | and )?)+)", text):
        for first, last in re.findall(r"(\d+)(?:(?:-| to )(\d+))?", found):
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def test_ranges_of_equations_are_read() -> None:
    assert equations_named("(W21 eqs. 1-2 and section 5; eqs. 4, 6; equations 10 to 12, eq. 9)") == {
        *(1, 2, 4, 6, 9, 10, 11, 12)
    }


def test_the_equations_of_w21_are_named_where_they_are_implemented() -> None:
    there: set[int] = set()
    for statement, _, file, *_ in ROWS:
        if statement.startswith("W21 eq"):
            text = (REPOSITORY / file.strip("`")).read_text(encoding="utf-8")
            numbers = equations_named(statement.removeprefix("W21 "))
            documented = equations_named(" ".join(docstrings(text)))
            assert numbers <= documented, f"{file} names {sorted(documented)}, but not {statement}"
            there |= numbers
    assert there == set(range(1, 19))


def docstrings(text: str) -> list[str]:
    """All docstrings of a file, each on one line."""
    nodes = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    ]
    return [" ".join(docstring.split()) for docstring in map(ast.get_docstring, nodes) if docstring]


@pytest.mark.parametrize("statement", ["Theorem 1", "Theorem 2", "Algorithm 1"])
def test_the_statements_of_z21_are_named_where_they_are_implemented(statement: str) -> None:
    rows = [row for row in ROWS if row[0].startswith(f"Z21 {statement}")]
    files = {row[2].strip("`") for row in rows}
    named = [
        path
        for path in files
        if re.search(statement.replace("Theorem ", "Theorems? (1 and )?"), (REPOSITORY / path).read_text("utf-8"))
    ]
    assert named, f"none of {sorted(files)} names {statement}"


def test_the_cells_of_the_tables_are_those_of_published_csv() -> None:
    generator = runpy.run_path(str(REPOSITORY / "docs/papers_cells.py"))
    assert generator["page_with_cells"](TEXT) == TEXT, "run: python docs/papers_cells.py"
    values = {row["accuracy"] for row in recipes.published_rows()}
    shown = {row[1].split(" ± ")[0] for row in rows_of(TEXT.partition(generator["BEGIN"])[2])}
    assert values <= shown


def test_every_learner_has_an_independent_test() -> None:
    independent = {row[2].strip("`") for row in ROWS if "tests/independent/" in row[3]}
    files = {cls.__module__.replace(".", "/") for cls in (learners[name] for name in learners)}
    assert {f"src/{file}.py" for file in files if file.startswith("kshot/")} <= independent
