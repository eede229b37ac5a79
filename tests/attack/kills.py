"""kill -9 at random times and before chosen file operations; what is gone on with ends as if nothing had happened."""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack.children import Case, command, start
from attack.photographs import write_photographs
from cli_toys import MEASURE, TINY, prepare_tiny

from kshot import data
from kshot.runs import Run

STAGES = shlex.split(
    "--data tiny --backbone.width 4 --ways 3 --shots 2 --queries 2 --meta-batch 2 --tasks-per-epoch 4 --max-epochs 1 "
    "--validation-tasks 4 --validation-queries 2 --schedule constant --progress false --learner.groups 2 "
    "--learner.assignment-steps 2 --solutions 10 --run run"
)
_WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")


def count_operations(act: Callable[[int], object]) -> Callable[[], None]:
    """A hook that calls `act` with the number of each operation on files, counted from 1, before it happens."""

    def install() -> None:
        numbers = iter(range(1, 1 << 60))

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in _WRITES or writes) and str(arguments[0]) != os.devnull:
                act(next(numbers))

        sys.addaudithook(watch)

    return install


def kill_before(number: int) -> Callable[[], None]:
    """A hook that kills the process before this operation on files."""
    return count_operations(lambda at: os.kill(os.getpid(), signal.SIGKILL) if at == number else None)


@dataclass
class Victim:
    """A command that is killed.

    Attributes
    ----------
    name
        What it is called in the tally.
    words
        The command line.
    resume
        What goes on with it, once `begun` is true of its folder; before that, the command itself does.
    begun
        Whether there is something to go on with.
    setting
        What an undisturbed attempt starts from; its content is copied for each case.
    result
        What is compared, of the folder.
    seconds, operations
        Of an undisturbed attempt.
    """

    name: str
    words: list[object]
    resume: list[object]
    begun: Callable[[], bool]
    setting: Path
    result: Callable[[Path, str], Any]
    seconds: float = 0.0
    operations: int = 0
    expected: Any = field(default=None)

    def learn(self, folder: Path) -> None:
        """Run it undisturbed, for the result, the time and the number of operations."""
        shutil.copytree(self.setting, folder)
        before = Path.cwd()
        os.chdir(folder)
        counted = os.open("operations", os.O_RDWR | os.O_CREAT)
        started = time.monotonic()
        answer = command(self.words, hook=count_operations(lambda _: os.write(counted, b".")))
        self.seconds = time.monotonic() - started
        assert answer.code == 0, answer
        self.operations = os.fstat(counted).st_size
        self.expected = self.result(folder, answer.out)
        os.chdir(before)

    def case(self, number: int, dice: random.Random) -> Case:
        """A kill at a random time, or before a random operation."""
        moment = dice.randint(1, self.operations) if number % 2 else dice.uniform(0.02, 1.0) * self.seconds
        how = f"before operation {moment} of {self.operations}" if number % 2 else f"after {moment:.2f} s"
        kind = f"kill of {self.name}, {'before an operation' if number % 2 else 'at any time'}"
        return Case(kind, f"{self.name} killed {how}", lambda folder: self._killed(folder, moment), memory=8 << 30)

    def _killed(self, folder: Path, moment: float) -> str:
        shutil.copytree(self.setting, folder, dirs_exist_ok=True)
        if isinstance(moment, int):
            answer = command(self.words, hook=kill_before(moment))
            if answer.code not in (0, -signal.SIGKILL):
                return f"the command that should be killed ended with {answer}"
        else:
            process = start(self.words)
            time.sleep(moment)
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        answer = command(self.resume if self.begun() else self.words)
        if answer.code != 0 or answer.escaped:
            return f"going on ended with {answer}"
        left = [str(path) for path in folder.rglob("*") if path.name.endswith((".tmp", ".partial", ".holder.json"))]
        if left:
            return f"left behind: {left}"
        found = self.result(folder, answer.out)
        return "" if found == self.expected else f"other results than undisturbed: {_differing(found, self.expected)}"


def _differing(found: Any, expected: Any) -> str:
    if not isinstance(found, dict):
        return f"{found!r:.300} and not {expected!r:.300}"
    return ", ".join(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def run_content(run: Path) -> dict[str, Any]:
    """All of a trained run but for its clocks."""
    content: dict[str, Any] = {name: (run / name).read_bytes() for name in ("config.yaml", "metrics.csv")}
    for name in ("best", "last"):
        saved = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
        content[f"{name}.pt"] = _plain(saved)
    opened = Run(run)
    opened.load()
    assert len(opened.timing()["epoch"]) == len(opened.metrics()["epoch"])
    return content


def _plain(value: Any) -> Any:
    """A checkpoint as something that can be compared bit for bit, without its clocks."""
    if isinstance(value, torch.Tensor):
        file = io.BytesIO()
        np.save(file, value.numpy())
        return file.getvalue()
    if isinstance(value, dict):
        timed = {"seconds", "epoch_seconds", "validation_seconds", "tasks_per_second", "images_per_second"}
        return {str(name): _plain(part) for name, part in value.items() if name not in timed}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return repr(value)


def _train_result(folder: Path, _: str) -> dict[str, Any]:
    return run_content(folder / "run")


def _stages_result(folder: Path, _: str) -> dict[str, Any]:
    run = folder / "run"
    parts = {"groups.csv": (run / "groups.csv").read_bytes(), "stages.yaml": (run / "stages.yaml").read_bytes()}
    parts["solutions"] = (run / "solutions" / "solutions.npy").read_bytes()
    return run_content(run) | parts | {"pretraining": run_content(run / "pretraining")}


def _evaluate_result(folder: Path, out: str) -> dict[str, Any]:
    files = sorted((folder / "run" / "evaluation").glob("*.json"))
    saved = {path.name: json.loads(path.read_text()) for path in files}
    return {"said": out} | {name: content["values"] for name, content in saved.items()}


def _prepare_result(folder: Path, _: str) -> dict[str, Any]:
    meta = json.loads((folder / "root" / "mine" / "meta.json").read_text())
    data.verify("mine", folder / "root")
    return {"sha256": meta["sha256"], "classes": meta["classes"]}


def victims(folder: Path) -> list[Victim]:
    """The commands that are killed, and what they start from."""
    root, empty = folder / "root", folder / "empty"
    prepare_tiny(root)
    os.environ["KSHOT_ROOT"] = str(root)
    empty.mkdir(parents=True)
    trained, photographs = folder / "trained", folder / "photographs"
    trained.mkdir()
    write_photographs(photographs / "tree", classes=6, images=3)
    write_photographs(photographs / "earlier", classes=7, images=2)
    before = Path.cwd()
    os.chdir(trained)
    assert command(["train", *TINY, "--run", "run"]).code == 0
    os.chdir(photographs)
    prepare: list[object] = ["data", "prepare", "folder", "--name", "mine", "--size", 8, "--root", "root", "--source"]
    assert command([*prepare, "earlier"]).code == 0
    os.chdir(before)
    replaced: list[object] = [*prepare, "tree", "--overwrite"]
    train: list[object] = ["train", *TINY, "--max-epochs", 3, "--run", "run"]
    evaluate: list[object] = ["evaluate", "run", *MEASURE, "--shots", 1, 3]
    resume: list[object] = ["--resume", "run", "--progress", "false"]
    last = Path("run", "checkpoints", "last.pt")
    return [
        Victim("train", train, ["train", *resume], last.exists, empty, _train_result),
        Victim("prepare --overwrite", replaced, replaced, lambda: False, photographs, _prepare_result),
        Victim("evaluate", evaluate, evaluate, lambda: False, trained, _evaluate_result),
        Victim(
            "tsa train",
            ["tsa", "train", *STAGES],
            ["tsa", "train", *resume],
            Path("run", "stages.yaml").exists,
            empty,
            _stages_result,
        ),
    ]


SHARES = {"train": 5, "prepare --overwrite": 3, "evaluate": 2, "tsa train": 2}


def cases(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """This many kills, shared out over the victims."""
    turns = [victim for victim in victims(folder) for _ in range(SHARES[victim.name])]
    for victim in dict.fromkeys(victim.name for victim in turns[:count]):
        next(each for each in turns if each.name == victim).learn(folder / f"undisturbed {victim}")
    for number in range(count):
        dice = random.Random(f"kill-{seed}-{number}")
        victim = turns[number % len(turns)]
        yield victim.case(number // len(turns) + number, dice)
