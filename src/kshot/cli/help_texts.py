"""How the help of a command looks: types and texts of docstrings in the words of the command line."""

from __future__ import annotations

import argparse
import re
from typing import Any, get_args

import jsonargparse

NAME = ".name"  # `--learner mtl` is short for `--learner.name mtl`


class HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of examples, and writes options as they are typed.

    `--learner` stands for `--learner.name`, choices appear only once, types have names that people use, and
    jsonargparse's `--factor+`, which appends to a list, is left out.
    """

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return re.sub(r", --\S+\+ .*", "", super()._format_action_invocation(action)).replace(NAME, "")

    def _expand_help(self, action: argparse.Action) -> str:
        text = re.sub(r"Optional\[(.*)\](?=, default)", r"\1 | null", super()._expand_help(action))
        text = re.sub(r"type: (Literal\[.*?\]|bool)( \| null)?(, )?", "", text)
        text = re.sub(r"default: (True|False)\b", lambda match: match[0].lower(), text)
        text = re.sub(r"<class '(\w+)'>", r"\1", text)
        return re.sub(r"type: ([^,)]*)", lambda match: _in_words(match[1]), text)


def _in_words(hint: str) -> str:
    """A type as the help writes it: "whole number or null" for "int | null"."""
    words = {"int": "whole number", "float": "number", "str": "text", "Path": "path"}
    parts = [
        re.sub(r"list\[(\w+)\]", lambda match: f"list of {words.get(match[1], match[1])}s", part)
        for part in hint.split(" | ")
    ]
    return " or ".join(words.get(part, part) for part in parts)


def as_typed(text: str) -> str:
    """A docstring's text in the words of the command line: null, true and false, without marks around code."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda match: words[match[0]], text.replace("`", "")).rstrip(".")


def type_text(hint: Any) -> str:
    """What an option takes, as a message says it: "a whole number or null"."""
    if isinstance(hint, type):
        return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, hint.__name__)
    options = re.fullmatch(r"typing\.Literal\[(.*)\]", str(hint))
    if options:
        return f"one of {options[1]}"
    if type(None) in get_args(hint):
        return " or ".join([type_text(part) for part in get_args(hint) if part is not type(None)] + ["null"])
    return str(hint).replace("typing.", "").replace("pathlib.", "")
