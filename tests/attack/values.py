"""Absurd values for every option of every command: refused in one line, or meant.

A command that is still at work when its time is up was given something that it means: it ends as after Ctrl-C.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from attack.children import Case, command
from attack.kills import STAGES
from attack.photographs import write_photographs
from attack.tally import Answer, refusal
from cli_toys import MEASURE, TINY, prepare_tiny

from kshot.cli import main
from kshot.cli.options import Options
from kshot.experiments.findings import experiments
from kshot.learners import learners
from kshot.solvers import adaptations

_HUGE = "100000000000000000000"
_ANY = ["", "x", "null", "[]", "[1", "{}", "{a: b}", "*a", "!!python/name:os.system", "'", "# c", "---", "%", "\udcff"]
_PLACES = ["", "~", "~nobody/x", "# c", "---", "-", ".", "/dev/null", "/dev/full", "/proc/x", "x" * 300, "\udcff", "*"]
_VALUES: dict[Any, list[str]] = {
    int: [_HUGE, f"-{_HUGE}", "1e20", "-1", "0", "1.5", "nan", "inf", "9223372036854775807", "2147483648", "true",
          "0x10", "1_0", "１", "10000000", *_ANY],
    float: ["nan", "inf", "-inf", "1e400", "1e-400", "-1", "0", "-0.0", "1e308", "1e20", "true", _HUGE, *_ANY],
    bool: ["maybe", "2", "1.0", *_ANY],
    str: ["../x", "x" * 5000, "\x1b[31mx", "a\nb", "$HOME", "~", "../root/tiny", "0", *_ANY],
    Path: [*_PLACES, "[1]", "a\nb", "$x$", "\x1b[31m"],
}  # fmt: skip
SECONDS = 4.0  # of processor time


class _Captured(Exception):
    """The types of a command's options, in place of its work."""

    def __init__(self, hints: dict[str, Any]) -> None:
        super().__init__()
        self.hints = hints


@dataclass(frozen=True)
class Command:
    """A command that works as it stands, and the runs of the setting that it needs."""

    words: list[object]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in the tally."""
        return " ".join(str(word) for word in self.words[: 2 if self.words[0] in ("data", "tsa", "classifier") else 1])

    def hints(self) -> dict[str, Any]:
        """Its options with their types; positional arguments are left out."""
        parse = Options.parse

        def capture(options: Options, *_: Any, **__: Any) -> Any:
            named = {action.dest for action in options.parser._actions if action.option_strings}
            raise _Captured({key: hint for key, hint in options._hints.items() if key in named})

        Options.parse = capture  # type: ignore[method-assign]
        try:
            main([str(word) for word in self.words])
        except _Captured as captured:
            return captured.hints
        finally:
            Options.parse = parse  # type: ignore[method-assign]
        raise AssertionError(f"{self.words} takes no options")


def commands() -> list[Command]:
    """All commands, with small options."""
    photographs: list[object] = ["photographs", "photographs/class-0", "--run", "trained"]
    tiny = ["--ways", 3, "--queries", 2, "--meta-batch", 2, "--tasks-per-epoch", 2, "--max-epochs", 1, "--shots", 2]
    tiny += [
        "--data",
        "tiny",
        "--backbone.width",
        4,
        "--validation-tasks",
        4,
        "--validation-queries",
        2,
        "--run",
        "new",
    ]
    view = ["--ways", 3, "--shots", 2, "--tasks", 4]
    found = [
        Command(["train", *TINY, "--max-epochs", 1, "--run", "new"]),
        Command(["train", *TINY, "--max-epochs", 1]),
        Command(["train", "--resume", "trained", "--max-epochs", 3, "--progress", "false"], ("trained",)),
        *[
            Command(["train", *tiny, "--progress", "false", "--learner", name])
            for name in learners
            if name not in ("tsa-maml",)
        ],
        Command(["evaluate", "trained", *MEASURE], ("trained",)),
        *[Command(["evaluate", "trained", *MEASURE, "--adaptation", name], ("trained",)) for name in adaptations],
        Command(["compare", "trained", "other", *MEASURE], ("trained", "other")),
        Command(["report", "trained"], ("trained",)),
        Command(["data", "list"]),
        Command(["data", "verify", "tiny"]),
        Command(["data", "show", "tiny"]),
        Command(
            ["data", "prepare", "folder", "--source", "photographs", "--name", "mine", "--size", 8], ("photographs",)
        ),
        Command(["regression", "sines", "--tasks", 4, "--queries", 3], ("sines",)),
        Command(["classify", *photographs], ("trained", "photographs")),
        Command(["classifier", "fit", "photographs", "--run", "trained"], ("trained", "photographs")),
        Command(["tsa", "train", *STAGES]),
        *[Command(["tsa", name, "stages", *view], ("stages",)) for name in ("steps", "usage", "groups", "map")],
        Command(["demo", "--epochs", 1]),
        Command(["study", "plan", "all-learners"]),
        Command(["study", "status", "all-learners"]),
        *[Command(["theory", name]) for name in experiments],
    ]
    return found


def prepare(folder: Path) -> None:
    """The setting: a dataset, photographs, and runs of several kinds."""
    root = folder / "root"
    prepare_tiny(root)
    os.environ["KSHOT_ROOT"] = str(root)
    write_photographs(folder / "photographs", classes=6, images=3)
    sines = shlex.split("--data sinusoids --learner maml --max-epochs 1 --tasks-per-epoch 4 --validation-tasks 4")
    before = Path.cwd()
    os.chdir(folder)
    for words in (
        ["train", *TINY, "--run", "trained"],
        ["train", *TINY, "--seed", 1, "--run", "other"],
        ["train", *sines, "--progress", "false", "--run", "sines"],
        ["tsa", "train", *STAGES[:-1], "stages"],
    ):
        answer = command(words)
        assert answer.code == 0, answer
    os.chdir(before)


def _with_hints(folder: Path) -> list[tuple[Command, list[tuple[str, Any]]]]:
    """All commands with their options; one of them looks at a run to say which it has."""
    before = Path.cwd()
    os.chdir(folder)
    found = [(each, list(each.hints().items())) for each in commands()]
    os.chdir(before)
    return found


def _kind(hint: Any, dice: random.Random) -> Any:
    """One of the plain types that an option takes; a choice is a text."""
    if get_origin(hint) is Literal:
        return str
    parts = [part for part in get_args(hint) if part not in (type(None), Ellipsis)]
    return _kind(dice.choice(parts), dice) if parts else hint if hint in _VALUES else str


def _words(option: str, hint: Any, dice: random.Random) -> list[str]:
    value = dice.choice(_VALUES[_kind(hint, dice)])
    form = dice.choice(["value", "value", "value", "value", "equals", "twice", "none", "list"])
    return {
        "value": [option, value],
        "equals": [f"{option}={value}"],
        "twice": [option, value, value],
        "none": [option],
        "list": [f"{option}=[{value},{value}]"],
    }[form]


def cases(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """This many values, every command in turn, and of each a random option."""
    prepare(folder)
    known = _with_hints(folder)
    for number in range(count):
        dice = random.Random(f"value-{seed}-{number}")
        each, hints = known[number % len(known)]
        key, hint = dice.choice(hints)
        words = [*each.words, *_words(f"--{key.replace('_', '-')}", hint, dice)]
        shown = " ".join(shlex.quote(str(word)) for word in words)
        yield Case(
            f"values of {each.name}",
            shown[:400].encode("unicode_escape").decode(),
            lambda place, each=each, words=words: _try(folder, place, each, words),
        )


def _try(folder: Path, place: Path, each: Command, words: list[object]) -> str:
    for name in each.needs:
        shutil.copytree(folder / name, place / name)
    os.environ |= {"HOME": str(place / "home"), "XDG_CACHE_HOME": str(place / "cache")}
    return judged(command(words, seconds=SECONDS))


def judged(answer: Answer) -> str:
    """What is wrong with an answer: it refuses in one line, or does what it is asked for."""
    if answer.code == 130 and not answer.escaped:
        return ""
    if answer.code == 0 and not answer.escaped:
        said = answer.out + answer.err
        return f"says nan: {said!r:.300}" if "nan" in said.replace("unanswered", "").split() else ""
    return refusal(answer)
