"""Refuses mistyped names and options of a training at once: the command itself waits seconds for torch.

Learners, backbones, datasets and the options of each are read from the syntax of kshot's own files, which nothing is
imported for. What passes is checked again, with its types, by the command.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kshot
from kshot import recipes
from kshot.cli.known_options import KnownOptions
from kshot.cli.options import chosen, expand_set
from kshot.errors import ConfigError, DataError, did_you_mean
from kshot.files import cache_root

_PACKAGE = Path(kshot.__file__).parent
_COMMON = ("root", "resume", "set")
_OF_TRAINING = ("recipe", "data.name", "learner.name", "backbone.name", *_COMMON, "run")
_FROM_DATA = {"backbone", "num_classes", "ways", "in_channels", "image_size"}
_DEFAULTS = {"data": "glyphs", "learner": "mtl"}


def check(words: Sequence[str]) -> None:
    """ConfigError or DataError for a mistyped name or option, if the command is `kshot train` or `kshot tsa train`."""
    if words[:1] == ["train"]:
        _check_training("kshot train", words[1:], _DEFAULTS)
    elif words[:2] == ["tsa", "train"]:
        stages = fields_of("tsa/stages.py", "Stages")
        _check_training("kshot tsa train", words[2:], _DEFAULTS | {"learner": "tsa-maml"}, more=stages)


def _check_training(
    command: str, arguments: Sequence[str], defaults: Mapping[str, str], *, more: Sequence[str] = ()
) -> None:
    typed = chosen(arguments, ["recipe", "resume", "root", "data", "learner", "backbone"])
    fields = fields_of("training/options.py", "TrainingOptions")
    if "resume" in typed:
        _check_options(KnownOptions(f"{command} --resume RUN", dict.fromkeys([*_COMMON, *fields])), arguments)
        return
    recipe = recipes.load(typed["recipe"]).options if "recipe" in typed else {}
    names = dict(defaults) | {part: content["name"] for part, content in recipe.items() if "name" in content} | typed
    names.setdefault("backbone", "mlp" if names["data"] in sources_and_families()[1] else "conv4")
    known = KnownOptions(command, dict.fromkeys([*_OF_TRAINING, *more, *fields]))
    for part in ("learner", "backbone"):
        options = options_of(f"{part}s")
        if names[part] not in options:
            near = did_you_mean(names[part], options)
            raise ConfigError(f"there is no {part} {names[part]!r}; choose one of: {', '.join(options)}{near}")
        known.choices[part] = names[part], options
        known.keys |= dict.fromkeys(f"{part}.{option}" for option in options[names[part]])
    _check_options(known, arguments)
    check_dataset(names["data"], typed.get("root"))


def _check_options(known: KnownOptions, arguments: Sequence[str]) -> None:
    for word in expand_set(arguments):
        if word.startswith("--") and word != "--":
            known.key_of(word.partition("=")[0])


def check_dataset(name: str, root: str | None) -> None:
    """DataError for a dataset that is neither known nor prepared; whatever is doubtful passes."""
    sources, families = sources_and_families()
    folder = cache_root(root)
    if name in families or name.partition(":")[0] in sources or any(letter in name for letter in "/\\\0"):
        return
    if any(name in path.name for path in folder.glob("*")):  # prepared, or left halfway by a process that was killed
        return
    forms = [f"{source}:PATH" for source, facts in sources.items() if facts.get("loads_paths")]
    named = [source for source, facts in sources.items() if not facts.get("needs_name")]
    prepared = sorted(path.parent.name for path in folder.glob("[!.]*/meta.json"))
    known = list(dict.fromkeys([*forms, *named, *families, *prepared]))
    raise DataError(
        f"there is no dataset {name!r} in {folder}{did_you_mean(name, known)}; choose one of: {', '.join(known)}"
    )


@cache
def _classes(place: str) -> dict[str, ast.ClassDef]:
    """The classes in a file of kshot, or in the files of a folder, by name; nothing is imported."""
    path = _PACKAGE / place
    files = sorted(path.glob("*.py")) if path.is_dir() else [path]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def fields_of(place: str, name: str) -> list[str]:
    """The fields of a dataclass in a file of kshot."""
    body = _classes(place)[name].body
    return [node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]


def options_of(room: str) -> dict[str, list[str]]:
    """The options of everything that is registered in a room, such as "learners", by its name."""
    classes = _classes(room)
    found = {}
    for node in classes.values():
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == f"{room}.register":
                found[ast.literal_eval(mark.args[0])] = [
                    option for option in _constructor(node, classes) if option not in _FROM_DATA
                ]
    return dict(sorted(found.items()))


def _constructor(node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]) -> list[str]:
    """The parameters of a class's constructor, or of the first base's that has one."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return [argument.arg for argument in (*part.args.args[1:], *part.args.kwonlyargs)]
    bases = [classes[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return next(filter(None, (_constructor(base, classes) for base in bases)), [])


def sources_and_families() -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The attributes of the sources of datasets by name, in the order of their table, and the names of the families."""
    table = ast.parse((_PACKAGE / "data/sources/__init__.py").read_text(encoding="utf-8"))
    rows = next(node for node in ast.walk(table) if isinstance(node, ast.Tuple) and len(node.elts) > 2)
    sources = {source["name"]: source for row in rows.elts if (source := _attributes("data/sources")[ast.unparse(row)])}
    families = [family["name"] for family in _attributes("data/regression.py").values() if "name" in family]
    return sources, families


def _attributes(place: str) -> dict[str, dict[str, Any]]:
    """The attributes of each class that are constants, those of its bases included, by the name of the class."""
    classes = _classes(place)

    def of(node: ast.ClassDef) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in classes:
                facts |= of(classes[base.id])
        for part in node.body:
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant):
                facts |= {target.id: part.value.value for target in part.targets if isinstance(target, ast.Name)}
        return facts

    return {name: of(node) for name, node in classes.items()}
