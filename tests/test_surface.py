"""What users find: the names that `import kshot` offers, their types, and the pages that introduce each learner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
