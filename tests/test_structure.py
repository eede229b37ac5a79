"""The rooms of the package: imports point downwards only, and every name of the front door can be touched."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kshot

# from the top floor down; rooms on one floor do not know each other
FLOORS = [
    ["__main__"],
    ["cli"],
    ["app"],
    ["demo"],
    ["studies"],
    ["photos", "tsa"],
    ["training"],
    ["experiments"],
    ["runs"],
    ["report"],
    ["evaluation", "testing"],
    ["learners"],
    ["theory"],
    ["solvers"],
    ["backbones"],
    ["recipes"],
    ["data"],
    ["registry"],
    ["files", "intervals", "measures", "memory", "seeding"],
    ["errors"],
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
PACKAGE = Path(kshot.__file__).parent


def rooms_imported_by(path: Path) -> set[str]:
    """The rooms that a file imports from, inside functions and for type checkers included; not its own."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    rooms = {name.split(".")[1] for name in names if name.startswith("kshot.")}
    return rooms & FLOOR.keys() - {room_of(path)}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms - FLOOR.keys() == set()


def test_imports_point_downwards():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if room_of(path) != "__init__"
        for room in sorted(rooms_imported_by(path))
        if FLOOR[room] <= FLOOR[room_of(path)]
    ]
    assert upwards == []


IMPORT_EACH_FIRST = """
import os, sys
from importlib import import_module
import matplotlib.figure, scipy.stats, torch  # shared by all the children

for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        import_module(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print(name)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_every_room_and_command_can_be_the_first_that_is_imported():
    """The tests have imported everything before; the process of a command has not, and would meet a circle."""
    rooms = [f"kshot.{room}" for rooms in FLOORS for room in rooms if (PACKAGE / room).is_dir()]
    commands = [f"kshot.cli.{path.stem}" for path in sorted((PACKAGE / "cli").glob("*.py")) if path.stem != "__init__"]
    files = [f"kshot.data.{path.stem}" for path in sorted((PACKAGE / "data").glob("*.py"))]
    names = [name.removesuffix(".__init__") for name in [*rooms, *commands, *files]]
    result = subprocess.run([sys.executable, "-c", IMPORT_EACH_FIRST, *names], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
