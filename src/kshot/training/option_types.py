"""Whether options are of the types that they are declared with, for those that come from Python and meet no parser."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin

from kshot.errors import ConfigError

_KINDS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a text"),
    type(None): (type(None), "None"),
}


def check_option_types(options: Mapping[str, object], hints: Mapping[str, Any]) -> None:
    """ConfigError for the first option that is not of its type; choices (``Literal``) are left to other checks.

    Parameters
    ----------
    options
        The values by name.
    hints
        The type of each by name, as `typing.get_type_hints` returns them.
    """
    for name, value in options.items():
        if not _is_of(value, hints[name]):
            raise ConfigError(f"{name} is {value!r:.80}, but must be {_described(hints[name])}")


def _is_of(value: object, hint: Any) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is_of(value, part) for part in get_args(hint))
    if get_origin(hint) is list:
        part = get_args(hint)[0]
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_is_of(each, part) for each in value)
    if get_origin(hint) is Literal:
        return True
    is_number_kind = hint in (int, float)
    return isinstance(value, _KINDS[hint][0]) and not (is_number_kind and isinstance(value, bool))


def _described(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if get_origin(hint) is list:
        return "a list"
    return "one of its choices" if get_origin(hint) is Literal else _KINDS[hint][1]
