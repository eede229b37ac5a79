"""Names as a reader sees them: runs, classes and files may be called anything, and pages and pictures must stand it."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    """The text with each character that has no shape of its own written as its escape.

    Control characters (a terminal obeys some of them), line breaks, marks of direction, and what stands for bytes that
    are not UTF-8 become ``\\x1b``, ``\\n``, ``\\u202e`` and ``\\udc80``.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def shortened(text: str, longest: int) -> str:
    """The text, or its start and end with an ellipsis between them if it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    end = (longest - 1) // 2
    return f"{text[: longest - 1 - end]}…{text[len(text) - end :]}"


def display_names(names: Sequence[str], longest: int = 60) -> list[str]:
    """Printable names of at most `longest` characters, or of more if different names would look the same."""
    shown = [printable(name) for name in names]
    while True:
        short = [shortened(name, longest) for name in shown]
        if len(set(short)) == len(set(shown)):
            return short
        longest += 8


def in_picture(text: str, longest: int = 60) -> str:
    """The text as matplotlib draws it letter by letter: printable, short, and ``$`` begins no formula.

    Line breaks stay; each line has at most `longest` characters.
    """
    lines = (shortened(printable(line), longest) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")
