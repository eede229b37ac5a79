"""Command-line options made from signatures: the arguments of a constructor, their types, defaults and docstring.

jsonargparse checks the types of values from the command line and from recipes. This module gives it the signatures, and
answers an unknown name with a known one that is close to it.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jsonargparse

from kshot.cli.help_texts import NAME, HelpFormatter, as_typed, type_text
from kshot.cli.known_options import KnownOptions
from kshot.cli.signatures import command_help, parameters
from kshot.errors import ConfigError

ROOT_TEXT = "folder of prepared datasets; by default $KSHOT_ROOT, or else the platform's cache folder"
DEVICE_TEXT = 'where to compute: "auto" for a GPU if there is one, "cpu", "cuda:1"'
_SWITCH = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false", "null": "null"}
_INTEGERS = 2**63  # what numbers in arrays must stay below


class Options:
    """The options of one command.

    Parameters
    ----------
    command
        What the user types, for the usage line.
    description, examples
        What `--help` prints above and below the options.
    positional
        The arguments without a name, for the usage line.
    """

    def __init__(self, command: str, description: str, examples: Sequence[str], *, positional: str = "") -> None:
        shown = "\n".join(f"  {example}" for example in examples)
        self.parser = jsonargparse.ArgumentParser(
            prog=command,
            usage=" ".join(filter(None, [command, positional, "[options]"])),
            description=description,
            epilog=f"examples:\n{shown}\n",
            formatter_class=HelpFormatter,
            exit_on_error=False,
            allow_abbrev=False,
        )
        self._hints: dict[str, Any] = {}
        self._several: set[str] = set()  # keys of options that take several values
        self._one_or_several: set[str] = set()  # keys of options that take one value, or several as a list
        self._takes_positional = False
        self._known = KnownOptions(command)

    @classmethod
    def of(cls, command: str, function: Callable[..., Any], *, positional: str = "") -> Options:
        """The options of a command, whose docstring is its help, with a section of examples."""
        description, examples = command_help(function)
        return cls(command, description, examples, positional=positional)

    def add(self, name: str, hint: Any, *, text: str, default: Any = None, **options: Any) -> None:
        """Add one option `--name`, or a positional argument, which has no default, if `name` has no dashes."""
        self._add(self.parser, name, hint, text, {"default": default} if name.startswith("-") else {}, **options)

    def add_signature(
        self,
        function: Callable[..., Any],
        title: str,
        *,
        prefix: str = "",
        skip: Collection[str] = (),
        positional: Collection[str] = (),
        among: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        """Add an option for every parameter of a function or class, under one heading of the help.

        Parameters
        ----------
        function
            Its signature and docstring say what the options are.
        title
            The heading.
        prefix
            Goes before the names, as in ``learner.``.
        skip
            Parameters that are no options.
        positional
            Parameters that are given without a name.
        among
            What the function was chosen from, by name: the message to an option that it lacks says which have it.
        """
        if among is not None:
            names = {name: set(inspect.signature(part).parameters) - set(skip) for name, part in among.items()}
            chosen_name = next(name for name, part in among.items() if part is function)
            self._known.choices[prefix.rstrip(".")] = (chosen_name, names)
        group = self.parser.add_argument_group(title)
        for name, hint, default, text in parameters(function):
            if name in skip:
                continue
            required = default is inspect.Parameter.empty
            options: dict[str, Any] = {} if required else {"default": default}
            if name not in positional:
                options["required"] = required
            option = name if name in positional else f"--{prefix}{name}".replace("_", "-")
            self._add(self.parser if name in positional else group, option, hint, text, options)

    def _add(self, target: Any, option: str, hint: Any, text: str, settings: dict[str, Any], **more: Any) -> None:
        element, count = _elements(hint)
        self._takes_positional |= not option.startswith("-")
        if count is not None:
            settings["nargs"] = count
            self._several.add(_key(option))
            if isinstance(settings.get("default"), tuple):
                settings["default"] = list(settings["default"])
        self._hints[_key(option)] = element
        self._known.keys[_key(option)] = None
        if _takes_list_too(hint):
            self._one_or_several.add(_key(option))
            metavar = option.rpartition(".")[2].lstrip("-").replace("-", "_").upper()
            more.setdefault("metavar", f"{metavar} [{metavar} ...]")
        target.add_argument(option, type=element, help=as_typed(text), **settings, **more)

    def parse(self, arguments: Sequence[str], defaults: Mapping[str, Any] | None = None) -> jsonargparse.Namespace:
        """The options of a command line, on top of nested `defaults` such as those of a recipe.

        Raises ConfigError for an unknown option or a value of the wrong type, in either of the two.
        """
        if defaults:
            flat = dict(flatten(defaults))
            for key in flat:
                self._known.check(key, f"recipe: {key}")
            self._translating_errors(lambda: self.parser.parse_object(dict(defaults), defaults=True))
            self.parser.set_defaults(flat)
        normal = [self._as_path(word) for word in self._normal(arguments)]
        given = self._translating_errors(lambda: self.parser.parse_args(normal))
        for key, value in flatten(given.as_dict()):
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and abs(number) >= _INTEGERS:
                    raise ConfigError(f"--{key.replace('_', '-')} is {number}, and {_INTEGERS - 1} is the most")
        return given

    def _as_path(self, word: str) -> str:
        """`--run=~/a` with the folder that it means; a path that YAML would read as something else begins with `./`.

        ConfigError for an empty path, and for one that no system can have.
        """
        option, equals, value = word.partition("=")
        hint = self._hints.get(_key(option))
        if not equals or not option.startswith("--") or Path not in (hint, *get_args(hint)):
            return word
        if not value.strip() or "\0" in value:
            raise ConfigError(f"{option} is {value!r}; name a path")
        if value[0] == "~":
            value = str(Path(value).expanduser())
        return f"{option}={value}" if value[0].isalnum() or value[0] in "./_" else f"{option}=./{value}"

    def _normal(self, arguments: Sequence[str]) -> Iterator[str]:
        """`--max_epochs` as `--max-epochs`, `--training.x` as `--x`, `--learner` as `--learner.name`; unknown: error.

        A switch without a value, such as `--overwrite`, means true. `--milestones=[20,40]` is `--milestones 20 40`.
        """
        words, key = list(expand_set(arguments)), ""
        while words:
            word = words.pop(0)
            if not word.startswith("--") or word == "--":
                yield from _items(word) if key in self._several else [word]
                continue
            name, equals, value = word.partition("=")
            key = self._known.key_of(name)
            option = f"--{key.replace('_', '-')}"
            if bool in (self._hints.get(key), *get_args(self._hints.get(key))):
                if not equals:
                    value = words.pop(0) if words and self._is_value_of_switch(words[0]) else "true"
                yield f"{option}={_SWITCH.get(value.lower(), value)}"
            elif equals and key in self._several:
                yield from [option, *_items(value)]
            elif key in self._one_or_several and not equals:
                several = list(takewhile(lambda following: not following.startswith("--"), words))
                del words[: len(several)]
                yield from [f"{option}=[{','.join(several)}]"] if len(several) > 1 else [option, *several]
            else:
                if not equals and Path in (self._hints.get(key), *get_args(self._hints.get(key))):
                    equals, value = "=", words.pop(0) if words and not words[0].startswith("--") else ""
                yield f"{option}{equals}{value}"

    def _is_value_of_switch(self, word: str) -> bool:
        """Whether a word after a switch is its value, right or wrong, and not a positional argument."""
        return word.lower() in _SWITCH or not (word.startswith("--") or self._takes_positional)

    def _translating_errors(self, parse: Callable[[], jsonargparse.Namespace]) -> jsonargparse.Namespace:
        try:
            return parse()
        except argparse.ArgumentError as error:
            raise ConfigError(self._explained(str(error))) from error

    def _explained(self, message: str) -> str:
        """jsonargparse's message in the words of the command line: which option, what it takes, what it got."""
        key = re.search(r'Parser key "([^"]+)"', message)
        value = re.search(r"(?:Got|Given) value: (.*)", message)
        if key is None or value is None:
            message = re.sub(r"argument (\S+?)(/\S+)?: expected .*argument", r"\1 needs a value", message)
            return f"{' '.join(message.split())}; {self.parser.prog} --help lists all options"
        option = key[1] if key[1] not in self._hints else f"--{key[1].removesuffix(NAME).replace('_', '-')}"
        return f"{option} takes {type_text(self._hints.get(key[1]))}, not {value[1]!r}"


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested mappings."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def expand_set(arguments: Sequence[str]) -> Iterator[str]:
    """`--set key=value` as `--key=value`; every other argument as it is."""
    remaining = iter(arguments)
    for argument in remaining:
        if argument != "--set":
            yield argument
            continue
        assignment = next(remaining, "")
        if "=" not in assignment:
            raise ConfigError(f"--set takes key=value, as in --set learner.ways=10, not {assignment!r}")
        yield f"--{assignment}"


def chosen(arguments: Sequence[str], names: Collection[str]) -> dict[str, str]:
    """The values of a few options, read before the others because they decide which others there are."""
    values: dict[str, str] = {}
    expanded = list(expand_set(arguments))
    for position, argument in enumerate(expanded):
        option, equals, value = argument.partition("=")
        name = option.removeprefix("--").removesuffix(NAME)
        if option.startswith("--") and name in names:
            if not equals and (position + 1 == len(expanded) or expanded[position + 1].startswith("--")):
                raise ConfigError(f"--{name} needs a value")
            values[name] = value if equals else expanded[position + 1]
    return values


def _items(word: str) -> list[str]:
    """`[20,40]` as 20 and 40; anything else as it is."""
    return [item.strip() for item in word[1:-1].split(",")] if word.startswith("[") and word.endswith("]") else [word]


def _key(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _elements(hint: Any) -> tuple[Any, str | int | None]:
    """The type of one value, and how many of them an option takes: `list[int]` is written `--shots 1 5`."""
    required = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) in (Union, UnionType) and len(required) == 1:
        element, count = _elements(required[0])
        return (element, count) if count else (hint, None)
    if get_origin(hint) in (list, Sequence):
        return get_args(hint)[0], "+"
    if get_origin(hint) is tuple:
        return get_args(hint)[0], "+" if get_args(hint)[-1] is Ellipsis else len(get_args(hint))
    return hint, None


def _takes_list_too(hint: Any) -> bool:
    """Whether an option takes one value or a list of them, as `float | list[float]`."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return any(get_origin(part) is list for part in parts) and sum(part is not type(None) for part in parts) > 1
