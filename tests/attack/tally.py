"""What an attack tried, and what became of it."""

from __future__ import annotations

import contextlib
import io
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kshot.cli import main


class Answer(NamedTuple):
    """What a command said: its exit code, stdout and stderr; `escaped` is the traceback of what it did not catch."""

    code: int | None
    out: str
    err: str
    escaped: str


def ask(words: Sequence[object]) -> Answer:
    """Run a command in this process, and catch whatever it raises."""
    out, err, escaped, code = io.StringIO(), io.StringIO(), "", None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = main([str(word) for word in words])
        except BaseException:  # whatever it is, the attack has found it
            escaped = traceback.format_exc()
    return Answer(code, out.getvalue(), err.getvalue(), escaped)


def refusal(answer: Answer) -> str:
    """What is wrong with an answer as a refusal; empty if it is one line about what is wrong, and code 2."""
    if answer.escaped or "Traceback" in answer.err:
        return f"traceback: {(answer.escaped or answer.err).strip().splitlines()[-1]}"
    if answer.code != 2:
        return f"exit code {answer.code}"
    said = re.sub(r"\n  .*", "", answer.err.rstrip("\n"))  # a list of files, one to an indented line
    if not said.splitlines()[-1:] or not said.splitlines()[-1].startswith("error: ") or said.count("error: ") > 1:
        return f"not one line: {answer.err!r}"
    return ""


@dataclass
class Tally:
    """Counts by kind of attack; `failures` say what to repeat."""

    tried: Counter[str] = field(default_factory=Counter)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def count(self, kind: str, case: str, wrong: str) -> None:
        """Count a case; `wrong` says what went wrong, and is empty if the attack was held."""
        self.tried[kind] += 1
        if wrong:
            print(f"FAILED {kind}, {case}: {wrong}", flush=True)
            self.failures.setdefault(kind, []).append(f"{case}: {wrong}")

    @property
    def failed(self) -> list[str]:
        """All failures."""
        return [f"{kind}, {line}" for kind, lines in self.failures.items() for line in lines]

    def __str__(self) -> str:
        lines = [f"{'attack':34}{'tried':>8}{'held':>8}{'failed':>8}"]
        for kind, tried in sorted(self.tried.items()):
            failed = len(self.failures.get(kind, []))
            lines.append(f"{kind:34}{tried:8}{tried - failed:8}{failed:8}")
        return "\n".join(lines)
