"""What a signature and its docstring say about each parameter: name, type, default and text."""

from __future__ import annotations

import inspect
import pydoc
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, get_type_hints

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring


def parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any, Any, str]]:
    """(name, type, default, text of the docstring) of every parameter of a function or a class's constructor."""
    hints = get_type_hints(inspect.unwrap(function.__init__ if inspect.isclass(function) else function))
    texts = parameter_texts(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):  # as of a class without __init__
            yield name, hints[name], parameter.default, texts.get(name, "")


def parameter_texts(function: Callable[..., Any]) -> dict[str, str]:
    """What the sections "Parameters" and "Attributes" of numpydoc docstrings say about each parameter.

    A class takes from its bases what its own docstring leaves out, and a text such as "As for `evaluate`." is that of
    the function or class with this name, in the same file unless the name is dotted.
    """
    known = set(inspect.signature(function).parameters)
    documented = reversed(function.__mro__) if inspect.isclass(function) else [function]
    texts: dict[str, str] = {}
    for part in documented:
        for entry in parse_docstring(part.__doc__ or "", DocstringStyle.NUMPYDOC).params:
            names = set(entry.arg_name.split(", ")) & known
            text = " ".join((entry.description or "").split())
            reference = re.fullmatch(r"As for `([\w.]+)`\.", text)
            place = _named(reference[1], sys.modules[part.__module__]) if reference else None
            there = {} if place is None else parameter_texts(place)
            texts |= {name: there.get(name, text) for name in names}
    return texts


def _named(name: str, module: ModuleType) -> Any:
    """What has this name in a module, or what has this dotted name; None for neither."""
    return pydoc.locate(name) if "." in name else getattr(module, name, None)


def command_help(function: Callable[..., Any]) -> tuple[str, list[str]]:
    """What the docstring of a command's function says: the description, and the lines of the section "Examples"."""
    description, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples\n--------\n")
    return description, examples.splitlines()
