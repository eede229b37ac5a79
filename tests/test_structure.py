"""The rooms of the package: imports point downwards only, and every name of the front door can be touched."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kshot
from kshot.learners import learners

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
LONGEST_FILE = 320  # lines; about 300 is what a reader takes in
LONGEST_BODY = 45  # lines of a function, which with its signature fill a screen


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


def files_imported_by(path: Path) -> set[Path]:
    """The files of the package that a file imports from, inside functions and for type checkers included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {file for name in names if (file := file_of(name)) is not None}
    return found - {path}


def file_of(name: str) -> Path | None:
    """The file of a module, or of the module that something by this dotted name is in; None outside the package."""
    package, *parts = name.split(".")
    if package != "kshot":
        return None
    for length in (len(parts), len(parts) - 1):
        place = PACKAGE.joinpath(*parts[: max(0, length)])
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if length >= 0 and file.is_file():
                return file
    return None


def circles(imports: dict[Path, set[Path]]) -> list[list[str]]:
    """The files that import each other, directly or by way of others: one list per circle."""
    reached = {}
    for file in imports:
        seen: set[Path] = set()
        ahead = list(imports[file])
        while ahead:
            following = ahead.pop()
            if following not in seen:
                seen.add(following)
                ahead += imports.get(following, ())
        reached[file] = seen
    groups = {frozenset(other for other in reached[file] if file in reached.get(other, ())) for file in imports}
    return sorted(sorted(str(file.relative_to(PACKAGE)) for file in group) for group in groups if group)


def test_no_file_imports_itself_by_way_of_others():
    """The front door, which is loaded piece by piece, is on no way: files import each other by their own names."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert circles({path: files_imported_by(path) for path in files}) == []


def test_every_file_is_read_in_one_go():
    """A file that grows beyond this holds two concepts, of the package as of its tests; there are no exceptions."""
    paths = [*PACKAGE.rglob("*.py"), *Path(__file__).parent.rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert [f"{path} has {length} lines" for path, length in lengths.items() if length > LONGEST_FILE] == []


def test_every_function_is_read_in_one_go():
    """Its body, without the docstring; what takes longer has parts with names of their own."""
    long = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, function in functions_of(ast.parse(path.read_text(encoding="utf-8"))):
            first = function.body[1 if ast.get_docstring(function) is not None and len(function.body) > 1 else 0]
            length = (function.end_lineno or 0) - first.lineno + 1
            if length > LONGEST_BODY:
                long.append(f"{path.relative_to(PACKAGE)}: {name} has {length} lines")
    assert long == []


MOST_POSITIONAL = 4  # such as support features, their labels, query features and ways
OPERANDS_ALONE = 2  # of these, from where on whatever has a default is given by name
POSITIONAL_BY_CONTRACT = {
    "FewShotClassifier.score": "scikit-learn calls it so",
    "empirical_kernels": "a kernel is called with one or two sets of points, here after the network",
}


def functions_of(node: ast.AST, owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function below a node, with the classes that it is in before its name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from functions_of(child, f"{owner}{child.name}.")
        elif isinstance(child, ast.FunctionDef):
            yield owner + child.name, child
        else:
            yield from functions_of(child, owner)


def positional(name: str, function: ast.FunctionDef) -> tuple[list[str], list[str]]:
    """The parameters that may be given without a name, and those of them that have a default; without self."""
    arguments = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    optional = arguments[len(arguments) - len(function.args.defaults) :]
    is_static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    return arguments[1:] if "." in name and not is_static else arguments, optional


def test_options_are_given_by_name():
    """A public function takes four operands at most without their names, and an option with its name.

    The first two may have defaults. Of the constructors of learners the backbone alone goes without its name. Private
    functions, whose callers are in the same file, may take more.
    """
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, function in functions_of(ast.parse(path.read_text(encoding="utf-8"))):
            private = any(part.startswith("_") and part != "__init__" for part in name.split("."))
            if private or name in POSITIONAL_BY_CONTRACT:
                continue
            operands, optional = positional(name, function)
            if len(operands) > MOST_POSITIONAL or set(operands[OPERANDS_ALONE:]) & set(optional):
                wrong.append(f"{path.relative_to(PACKAGE)}: {name}({', '.join(operands)})")
    assert wrong == [], "let the options of each follow a star: f(first, second, *, option)"


def test_learners_take_everything_but_the_backbone_by_name():
    taken = {
        name: [
            parameter.name
            for parameter in inspect.signature(cls).parameters.values()
            if parameter.kind is not parameter.KEYWORD_ONLY
        ]
        for name, cls in learners.items()
    }
    assert {name: parameters for name, parameters in taken.items() if parameters != ["backbone"]} == {}


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
