"""Pages of the site that are made from other files of the repository: home, reference, contributing, changes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[1]
COPIES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ROOMS = [
    "learners",
    "solvers",
    "backbones",
    "data",
    "evaluation",
    "runs",
    "training",
    "tsa",
    "photos",
    "experiments",
    "theory",
    "report",
    "testing",
]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference pages into the navigation."""
    pages: list[dict[str, str]] = [{f"kshot.{room}": f"reference/{room}.md"} for room in _rooms()]
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file of their own in docs/."""
    contents = {page: _moved((REPOSITORY / source).read_text(encoding="utf-8")) for source, page in COPIES.items()}
    contents |= {f"reference/{room}.md": _reference(room) for room in _rooms()}
    for page, text in contents.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep a number of a table on one line with its interval."""
    lines = (line.replace(" ± ", "\u00a0±\u00a0") if line.startswith("|") else line for line in markdown.splitlines())
    return "\n".join(lines)


def _rooms() -> list[str]:
    package = REPOSITORY / "src" / "kshot"
    return [room for room in ROOMS if (package / room).is_dir() or (package / f"{room}.py").exists()]


def _moved(text: str) -> str:
    """Markdown from the repository's root as a page of docs/: the links are those from there."""
    for source, page in COPIES.items():
        text = text.replace(f"]({source}", f"]({page}")
    return re.sub(r"\]\(docs/", "](", text)


def _reference(room: str) -> str:
    """One page: the package's own text, then every module that says anything, in the order of the alphabet."""
    folder = REPOSITORY / "src" / "kshot" / room
    if not folder.is_dir():
        return f"# kshot.{room}\n\n{_module(f'kshot.{room}')}"
    modules = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    summary = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    parts = [f"# kshot.{room}", summary]
    for module in modules:
        parts += [f"## {module}", _module(f"kshot.{room}.{module}")]
    return "\n\n".join(parts)


def _module(path: str) -> str:
    """The directive that renders one module: its own text and its public members, without a heading of its own."""
    options = {"show_root_heading": "false", "show_root_toc_entry": "false", "heading_level": 3}
    return "\n".join([f"::: {path}", "    options:", *(f"      {name}: {value}" for name, value in options.items())])
