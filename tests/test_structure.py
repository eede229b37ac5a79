"""The rooms of the package: imports point downwards only, and every name of the front door can be touched."""

from __future__ import annotations

import ast
from pathlib import Path

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
