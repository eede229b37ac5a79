"""kshot trains and compares few-shot learners on one protocol.

>>> import kshot
>>> data = kshot.load("glyphs")
>>> learner = kshot.create_learner("protonet", data, backbone="conv4")
>>> run = kshot.train(learner, data, ways=20, shots=5, run="runs/a")
>>> run.evaluate(shots=[1, 5])
>>> print(kshot.table([run, kshot.Run("runs/b")], paired=True))

The stub ``__init__.pyi`` is the one list of what is offered here. A name is imported when it is first used, so that
``import kshot`` and ``kshot --help`` need not wait for torch.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def _offered() -> tuple[dict[str, str], list[str]]:
    """What the stub imports: the module of each name ("" for a package), and packages whose names are all offered."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes: dict[str, str] = {}
    packages: list[str] = []
    for node in stub.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.names[0].name == "*":
                packages.append(node.module)
            else:
                homes.update({alias.name: "" if node.module == "kshot" else node.module for alias in node.names})
    return homes, packages


def _all_names() -> list[str]:
    homes, packages = _offered()
    return [*homes, *(name for package in packages for name in import_module(package).__all__)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("kshot")
    if name == "__all__":
        return _all_names()
    homes, packages = _offered()
    if name in homes:
        home = homes[name]
        value = getattr(import_module(home), name) if home else import_module(f"kshot.{name}")
    elif name.startswith("_"):
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    elif find_spec(f"kshot.{name}") is not None:  # ``from kshot import seeding`` asks here before it imports
        value = import_module(f"kshot.{name}")
    else:
        offering = [module for module in map(import_module, packages) if name in module.__all__]
        if not offering:
            from kshot.errors import did_you_mean

            raise AttributeError(f"module 'kshot' has no attribute {name!r}{did_you_mean(name, _all_names())}")
        value = getattr(offering[0], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_all_names(), "__version__"})
