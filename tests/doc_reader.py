"""A reader of README.md and docs/ who follows every block of a page, on small data and shortened."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import Block, form, words_of

import kshot
from kshot.cli import early, main
from kshot.cli.options import Options

REPOSITORY = Path(__file__).parents[1]
SHORT_TRAINING = {"max_epochs": 1, "tasks_per_epoch": 1, "meta_batch": 1, "validation_tasks": 2, "progress": False}
FEW_TASKS = 6
DATASETS = {  # pixels and channels
    "glyphs": (28, 1),
    "cifar-fs": (32, 3),
    "fc100": (32, 3),
    "birds": (32, 3),
    "fungi": (32, 3),
    "aircraft": (32, 3),
}


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Python functions of training and evaluation do a little of what they are asked for."""
    train, evaluate, measure = kshot.train, kshot.evaluate, kshot.Run.evaluate

    @functools.wraps(train)
    def short_train(*args: Any, **options: Any) -> Any:
        return train(*args, **options | SHORT_TRAINING)

    @functools.wraps(evaluate)
    def short_evaluate(*args: Any, **options: Any) -> Any:
        return evaluate(*args, **options | {"tasks": FEW_TASKS})

    @functools.wraps(measure)
    def short_measure(*args: Any, **options: Any) -> Any:
        return measure(*args, **options | {"tasks": FEW_TASKS})

    monkeypatch.setattr(kshot, "train", short_train)
    monkeypatch.setattr(kshot, "evaluate", short_evaluate)
    monkeypatch.setattr(kshot.Run, "evaluate", short_measure)


class OptionsRead(Exception):
    """Raised in the place of a command's work."""


class Reader:
    """Someone who types what the pages say, in an empty folder; remembers what was printed last.

    at_length: run the demo, TSA-MAML and the theory, too, of which otherwise the options are read.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], at_length: bool = False) -> None:
        self.capsys = capsys
        self.at_length = at_length
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""
        self.commands = 0

    def follow(self, block: Block) -> None:
        """Run one block; an AssertionError or the exception of the snippet says where it is."""
        try:
            if block.treatment == "output":
                missing = [line for line in form(block.text) if line not in form(self.printed)]
                assert missing == [], f"{block}: these lines are not printed any more; printed:\n{self.printed}"
            elif block.language == "python":
                self.run_python(block)
            elif block.language == "shell":
                self.run_shell(block)
        except Exception as error:
            error.add_note(f"in {block}:\n{block.text}") if hasattr(error, "add_note") else None
            raise

    def run_python(self, block: Block) -> None:
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        if block.treatment != "parse":
            exec(code, self.names)
            self.printed = self.capsys.readouterr().out

    def run_shell(self, block: Block) -> None:
        lines = block.commands()
        for number, line in enumerate(lines):
            for program, *words in words_of(line, lines[:number], Path.cwd()):
                self.start(program, words, block)

    def start(self, program: str, words: list[str], block: Block) -> None:
        self.commands += 1
        if program in ("python", "python3") and words[0].endswith(".py"):
            assert (REPOSITORY / words[0]).exists(), f"{block}: there is no {words[0]}"
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
            assert [word for word in words if word not in targets and "=" not in word] == [], f"{block}: no such target"
            if words == ["demo"]:
                self.kshot(["demo"], block)
        elif program == "torchrun":
            options = " ".join(words).partition(" -m -- kshot ")[2].split()
            assert options, f"{block}: torchrun ... -m -- kshot ..., so that torchrun leaves the options alone"
            self.kshot(options, block)
        elif program == "kshot":
            self.kshot(words, block)

    def kshot(self, words: list[str], block: Block) -> None:
        downloads = words[:2] == ["data", "prepare"] and words[2] in DATASETS
        takes_long = words[0] in ("demo", "theory", "tsa") and not self.at_length
        if block.treatment == "parse" or downloads or takes_long:
            code = self.read_options(words)
        else:
            code = main([*words, *shorter(words)])
        self.printed, errors = self.capsys.readouterr()
        assert code == 0, f"{block}: kshot {' '.join(words)}\n{errors}"

    @staticmethod
    def read_options(words: list[str]) -> int:
        def only_read(*args: Any, **options: Any) -> None:
            parse(*args, **options)
            raise OptionsRead

        parse = Options.parse
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(Options, "parse", only_read)
            changed.setattr(
                early, "check_dataset", lambda name, root: None
            )  # of what the page prepares, unlike its test
            try:
                return main(words)
            except OptionsRead:
                return 0


def shorter(words: list[str]) -> list[str]:
    """What is added to a command so that it takes a second or so; what is given last counts."""
    training = [f"--{name.replace('_', '-')}={str(value).lower()}" for name, value in SHORT_TRAINING.items()]
    if "--help" in words or "--resume" in words:
        return []
    command = " ".join(words[:2]) if words[0] == "tsa" else words[0]
    if command == "train":
        functions = {"sinusoids", "quadratics", "maml-sinusoids"}
        return training if functions & set(words) else [*training, "--backbone.width=8"]
    few_tasks = [f"--tasks={FEW_TASKS}"]
    # six solutions tell no twenty axes from each other
    axes = ["--learner.cluster-components=2"] if "--learner.cluster-components" in words else []
    return {
        "demo": ["--epochs=1"],
        "tsa train": [*training, "--backbone.width=8", "--solutions=6", *axes],
        "evaluate": few_tasks,
        "compare": few_tasks,
        "regression": few_tasks,
        "tsa steps": few_tasks,
        "tsa usage": few_tasks,
        "tsa map": few_tasks,
        "tsa groups": few_tasks,
        "tsa clusters": few_tasks,
        "tsa distances": [*few_tasks, "--optimum-steps=2"],
    }.get(command, [])
