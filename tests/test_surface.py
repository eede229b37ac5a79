"""What users find: the names that `import kshot` offers, their types, and the pages that introduce each learner."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

import kshot
from kshot.backbones import backbones
from kshot.learners import learners

ROOT = Path(__file__).parents[1]
USER_SCRIPT = """
import kshot

data = kshot.load("glyphs")
learner = kshot.create_learner("protonet", data, backbone="conv4")
same: kshot.ProtoNet = kshot.ProtoNet(kshot.Conv4(64))
run = kshot.train(learner, data, ways=20, shots=5, run="runs/a")
for result in run.evaluate(shots=[1, 5]):
    print(result.mean + result.ci95)
print(kshot.table([run, kshot.Run("runs/b")], paired=True))
print(kshot.data.Split, kshot.report, kshot.tsa.Stages)
"""


def public_functions() -> dict[str, list[Callable[..., Any]]]:
    """What the packages offer, and the methods of offered classes, by name: each with those that it overrides."""
    functions: dict[str, list[Callable[..., Any]]] = {}
    packages = [kshot, *(vars(kshot)[name] for name in kshot.__all__ if inspect.ismodule(getattr(kshot, name)))]
    offered = [getattr(package, name) for package in packages for name in getattr(package, "__all__", ())]
    for value in offered:
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        name = f"{value.__module__}.{value.__qualname__}"
        if inspect.isfunction(value):
            functions[name] = [value]
        if inspect.isclass(value) and value.__module__.startswith("kshot."):
            ours = [base for base in value.__mro__ if base.__module__.startswith("kshot.")]
            if inspect.isfunction(value.__init__) and value.__init__.__module__.startswith("kshot."):
                functions[name] = ours
            for method, kept in vars(value).items():
                if isinstance(kept, FunctionType | classmethod | staticmethod) and not method.startswith("_"):
                    functions[f"{name}.{method}"] = [getattr(base, method) for base in ours if method in vars(base)]
    return functions


def undocumented(documented: list[Callable[..., Any]]) -> list[str]:
    """The parameters of the first that neither it nor those that it overrides explain.

    An entry of the sections "Parameters" or "Attributes" explains a parameter, and that of ``**options`` all keywords
    that it stands for. A function of two parameters at most may explain them in its text: by a name in backquotes, or
    by a name with a shape, as in "features (B, S, D)".
    """
    parameters = [name for name in inspect.signature(documented[0]).parameters if name not in ("self", "cls")]
    parameters = [name for name in parameters if not name.startswith("_")]
    if parameters == ["args", "kwargs"]:  # those of torch.nn.Module, which a class without a constructor has
        return []
    texts = [inspect.unwrap(function).__doc__ or "" for function in documented]
    entries = {
        name.lstrip("*")
        for text in texts
        for entry in parse_docstring(text, DocstringStyle.NUMPYDOC).params
        if entry.description
        for name in entry.arg_name.split(", ")
    }
    if "options" in entries and "options" not in parameters:
        return []
    in_text = [name for name in parameters if any(re.search(rf"`{name}`|\b{name} \(", text) for text in texts)]
    explained = entries | set(in_text if len(parameters) <= 2 else ())
    return [name for name in parameters if name not in explained]


def test_every_parameter_is_documented():
    missing = {name: undocumented(documented) for name, documented in sorted(public_functions().items())}
    assert {name: parameters for name, parameters in missing.items() if parameters} == {}, (
        'add each to the section "Parameters" of its docstring, with shapes and units'
    )


@pytest.mark.parametrize("registry", [learners, backbones], ids=["learners", "backbones"])
def test_every_registered_class_is_there(registry):
    offered = {name: getattr(kshot, name) for name in kshot.__all__}
    assert [cls.__name__ for cls in registry.values() if offered.get(cls.__name__) is not cls] == []


def test_every_name_works_when_touched():
    assert set(kshot.__all__) <= set(dir(kshot))
    assert [name for name in dir(kshot) if getattr(kshot, name, None) is None and name not in vars(kshot)] == []
    packages = {path.parent.name for path in Path(kshot.__file__).parent.glob("*/__init__.py")}
    assert packages - {"cli"} <= set(kshot.__all__)
    assert all(getattr(kshot, package).__name__ == f"kshot.{package}" for package in packages)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kshot' has no attribute 'Magic'"):
        kshot.Magic  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'trian' \(did you mean 'train'\?\)"):
        kshot.trian  # noqa: B018


def test_the_import_waits_for_no_torch():
    code = "import kshot, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("words", [["trian"], ["--help"], ["--version"], []], ids=str)
def test_the_command_answers_without_torch(words):
    code = f"from kshot.cli import main; import sys; main({words}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_training_waits_for_no_library_that_it_does_not_use():
    code = "import kshot.cli.train, sys; print({'matplotlib.figure', 'scipy.stats', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("folder", [ROOT, ROOT.parent], ids=["clone", "folder above the clone"])
def test_the_package_is_found_from_any_folder(folder):
    code = "import kshot; kshot.load, kshot.__version__"
    assert subprocess.run([sys.executable, "-c", code], cwd=folder).returncode == 0


def test_type_checkers_see_the_front_door(tmp_path):
    mistakes = {
        "kshot.train(3, data)": 'Argument 1 to "train" has incompatible type "int"',
        'kshot.train(learner, data, shots="five")': 'Argument "shots" to "train" has incompatible type "str"',
        "kshot.train(learner, data, shotz=5)": 'Unexpected keyword argument "shotz"',
        "kshot.trian(learner, data)": 'Module has no attribute "trian"',
        "run.evaluate([1, 5])": 'Too many positional arguments for "evaluate"',
        "kshot.tsa.Stage()": 'Module has no attribute "Stage"',
    }
    (tmp_path / "script.py").write_text(USER_SCRIPT + "\n".join(mistakes))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), "script.py"]
    output = subprocess.run(mypy, cwd=tmp_path, capture_output=True, text=True).stdout
    first = USER_SCRIPT.count("\n") + 1
    for number, message in enumerate(mistakes.values(), first):
        assert f"script.py:{number}: error: {message}" in output
    right = [line for line in output.splitlines() if "error:" in line and int(line.split(":")[1]) < first]
    assert right == []


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_learner_is_introduced(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [name for name in learners if f"`{name}`" not in text]
    assert missing == [], f"add a mention of each of these learners, in backquotes, to {page}"
