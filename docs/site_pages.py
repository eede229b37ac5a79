"""Pages of the site that are made from other files of the repository: home, reference, contributing, changes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "kshot"
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
    "studies",
    "photos",
    "experiments",
    "theory",
    "report",
    "testing",
    "errors",
]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the reference pages into the navigation."""
    pages = [{"kshot": "reference/kshot.md"}, *({f"kshot.{room}": f"reference/{room}.md"} for room in _rooms())]
    for entry in config.nav or []:
        if "Reference" in entry:
            entry["Reference"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file of their own in docs/."""
    contents = {page: _moved((REPOSITORY / source).read_text(encoding="utf-8")) for source, page in COPIES.items()}
    contents |= {f"reference/{room}.md": _reference(room) for room in _rooms()}
    contents["reference/kshot.md"] = _front_door()
    for page, text in contents.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep a number of a table on one line with its interval; name files outside docs/ without a link."""
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
    lines = (line.replace(" ± ", "\u00a0±\u00a0") if line.startswith("|") else line for line in markdown.splitlines())
    return "\n".join(lines)


def _rooms() -> list[str]:
    return [room for room in ROOMS if (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").exists()]


def _moved(text: str) -> str:
    """Markdown from the repository's root as a page of docs/: the links are those from there."""
    for source, page in COPIES.items():
        text = text.replace(f"]({source}", f"]({page}")
    text = re.sub(r"\]\((examples/)", r"](../\1", text)  # of which a page has the name alone
    return re.sub(r"\]\(docs/", "](", text)


def _reference(room: str) -> str:
    """One page: the package's own text, then every module that says anything, in the order of the alphabet."""
    parts = [f"# kshot.{room}"]
    if (PACKAGE / room).is_dir():
        parts.append(ast.get_docstring(_parsed(PACKAGE / room / "__init__.py")) or "")
    for path in _modules(room):
        module = path.relative_to(PACKAGE / room).with_suffix("") if (PACKAGE / room).is_dir() else Path(room)
        parts += [f"## {'.'.join(module.parts)}"] if (PACKAGE / room).is_dir() else []
        parts.append(_module(_dotted(path)))
    return "\n\n".join(parts)


def _front_door() -> str:
    """One line for each name that `import kshot` offers, out of the stub, with a link to its definition."""
    homes: dict[str, str] = {}
    for node in _parsed(PACKAGE / "__init__.pyi").body:
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "kshot"):
            room = str(node.module).split(".")[1]
            starred = node.names[0].name == "*"
            names = _exported(PACKAGE / room) if starred else [alias.name for alias in node.names]
            homes.update(dict.fromkeys(names, room))
    rows = [_row(name, room) for name, room in sorted(homes.items(), key=lambda item: (item[1], item[0].lower()))]
    text = "What `import kshot` offers, by the room that it comes from. The rooms themselves are offered, too."
    return "\n".join(["# kshot", "", text, "", "| name | what it is | room |", "|---|---|---|", *rows])


def _row(name: str, room: str) -> str:
    for path in _modules(room):
        for node in _parsed(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                summary = (ast.get_docstring(node) or "").partition("\n")[0].replace("|", "\\|")
                return f"| [`{name}`][{_dotted(path)}.{name}] | {summary} | `{room}` |"
    return f"| `{name}` | | `{room}` |"


def _exported(package: Path) -> list[str]:
    for node in _parsed(package / "__init__.py").body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def _modules(room: str) -> list[Path]:
    paths = (PACKAGE / room).rglob("*.py") if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    return sorted(path for path in paths if not path.stem.startswith("_"))


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module(path: str) -> str:
    """The directive that renders one module: its own text and its public members, without a heading of its own."""
    options = {"show_root_heading": "false", "show_root_toc_entry": "false", "heading_level": 3}
    return "\n".join([f"::: {path}", "    options:", *(f"      {name}: {value}" for name, value in options.items())])
