"""The commands and snippets of a page of Markdown, in order.

A comment in front of a block says that it is not simply run:

    <!-- test: skip: REASON -->      not run
    <!-- test: parse: REASON -->     the options are read, and the command goes no further
    <!-- test: slow -->              run by the slow tests only
    <!-- test: output: of WHAT -->   no command: what the block in front of it prints, up to the numbers

``<!-- test: page parse: REASON -->`` says the same of all commands of a page that have no comment of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Treatment = Literal["run", "skip", "parse", "slow", "output"]

_COMMENT = re.compile(r"^\s*<!-- test: (.*?)\s*-->\s*$")
_DIRECTIVE = re.compile(r"(page )?(skip|parse|slow|output)(?:: (\S.*))?")
_PROGRAMS = ("kshot", "make", "python", "python3", "pip", "torchrun", "pre-commit", "git")
_ASSIGNMENT = re.compile(r"[A-Z_]+=(?!\S* )|[A-Z_]+=\"")
# bash expands variables, loops, braces and file names; the programs only write down their words
_RECORD = "".join(
    f"{program}() {{ {{ printf '%s\\0' {program} \"$@\"; printf '\\n'; }} >&3; }}\n" for program in _PROGRAMS
)


@dataclass(frozen=True)
class Block:
    """One block of code: its text, where it is, and what the test does with it."""

    page: Path
    line: int
    language: Literal["python", "shell", "text"]
    text: str
    treatment: Treatment = "run"

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    def commands(self) -> list[str]:
        """The lines of a shell block; a line that is indented, or follows a backslash, belongs to the one above."""
        lines: list[str] = []
        for line in self.text.splitlines():
            if not line.strip():
                continue
            if lines and (line.startswith(" ") or lines[-1].endswith("\\")):
                lines[-1] = f"{lines[-1].removesuffix(chr(92))} {line.strip()}"
            else:
                lines.append(line)
        return lines


def blocks(page: Path) -> list[Block]:
    """All blocks of a page; ValueError for a comment that is no directive, or gives no reason."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    usual: Treatment = "run"
    treatment: Treatment | None = None
    position = 0
    while position < len(lines):
        line = lines[position]
        if comment := _COMMENT.match(line):
            whole_page, given = _directive(comment[1], f"{page.name}:{position + 1}")
            usual, treatment = (given, treatment) if whole_page else (usual, given)
            position += 1
            continue
        language, text, after = _block_at(lines, position)
        if text:
            kind = treatment or (usual if language != "text" else "run")
            found.append(Block(page, position + 1, language, text, kind))
        if line.strip():
            treatment = None
        position = max(after, position + 1)
    return found


def _directive(text: str, place: str) -> tuple[bool, Treatment]:
    match = _DIRECTIVE.fullmatch(text)
    if match is None:
        raise ValueError(f"{place}: {text!r} is no directive of tests/doc_blocks.py")
    if match[2] != "slow" and not match[3]:
        raise ValueError(f"{place}: say why, {match[2]}: REASON")
    return bool(match[1]), match[2]  # type: ignore[return-value]


def _block_at(lines: list[str], start: int) -> tuple[Literal["python", "shell", "text"], str, int]:
    """Language and text of the block that starts at a line, and the line after it; no text if none starts there."""
    if fence := re.match(r"^(\s*)```(\w*)", lines[start]):
        end = next(number for number in range(start + 1, len(lines)) if lines[number].strip() == "```")
        text = "\n".join(line.removeprefix(fence[1]) for line in lines[start + 1 : end])
        language = "python" if fence[2] in ("python", "py") else "shell" if _is_shell(text, fence[2]) else "text"
        return language, text, end + 1
    if not lines[start].startswith("    ") or (
        start and lines[start - 1].strip() and not _COMMENT.match(lines[start - 1])
    ):
        return "text", "", start
    end = start
    while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
        end += 1
    text = "\n".join(line[4:] for line in lines[start:end]).rstrip()
    return "shell" if _is_shell(text) else "python" if _is_python(text) else "text", text, end


def _is_shell(text: str, language: str = "") -> bool:
    if language in ("sh", "bash", "shell", "console"):
        return True
    first = re.sub(r"^(\w+=\S+ )+", "", text.lstrip()).split(maxsplit=1)
    return language == "" and bool(first) and (first[0] in (*_PROGRAMS, "for") or bool(_ASSIGNMENT.match(text)))


def _is_python(text: str) -> bool:
    return bool(re.match(r"(import |from \w+ import |\w+ = kshot\.)", text))


def words_of(command: str, before: list[str], folder: Path) -> list[list[str]]:
    """The programs that a line of shell would start in a folder, each with its words as bash expands them.

    before: the earlier lines of the block, whose variables the line may use.
    """
    variables = "\n".join(line for line in before if _ASSIGNMENT.match(line))
    script = folder / ".command.sh"
    script.write_text(f"set -e\n{_RECORD}{variables}\n{command}\n", encoding="utf-8")
    read, write = os.pipe()
    try:
        process = subprocess.run(
            ["bash", "-c", f"exec 3>&{write}; . ./{script.name}"],
            cwd=folder,
            pass_fds=[write],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(write)
        script.unlink()
    with os.fdopen(read, encoding="utf-8") as recorded:
        output = recorded.read()
    if process.returncode != 0:
        raise ValueError(f"bash does not understand {command!r}: {process.stderr}")
    return [line.rstrip("\0").split("\0") for line in output.splitlines()]


def form(text: str) -> list[str]:
    """The lines of an output without its numbers, rules and spaces, which differ between machines."""
    plain = re.sub(r"[-+]?\d[\d.,]*", "#", text)
    lines = (re.sub(r"\s+", " ", re.sub(r"-{3,}", "", line)).strip() for line in plain.splitlines())
    return [line for line in lines if line]
