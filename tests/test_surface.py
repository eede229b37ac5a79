"""What users find: the names that `import kshot` offers, and each learner on the pages that introduce them."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest

import kshot
from kshot.backbones import backbones
from kshot.learners import learners


@pytest.mark.parametrize("registry", [learners, backbones], ids=["learners", "backbones"])
def test_every_registered_class_is_there(registry):
    offered = {name: getattr(kshot, name) for name in kshot.__all__}
    assert [cls.__name__ for cls in registry.values() if offered.get(cls.__name__) is not cls] == []


def test_a_package_is_not_hidden_by_what_it_holds():
    """The import of a package puts it under its own name, so that another meaning would depend on who came first."""
    modules = {module.name for module in pkgutil.iter_modules(kshot.__path__)}
    assert {"backbones", "learners", "solvers"} <= modules & set(kshot.__all__)
    assert modules & set(kshot._HOME) == set()


def test_an_unknown_name_is_an_attribute_error():
    assert set(kshot.__all__) <= set(dir(kshot))
    with pytest.raises(AttributeError, match="module 'kshot' has no attribute 'Magic'"):
        kshot.Magic  # noqa: B018


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_every_learner_is_introduced(page):
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    assert [name for name in learners if f"`{name}`" not in text] == []
