"""Two processes at one folder: one is refused, or both end well; nothing is mixed, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from attack.children import Case, command, start
from attack.kills import run_content
from attack.photographs import write_photographs
from attack.tally import refusal
from cli_toys import MEASURE, TINY, prepare_tiny

from kshot import data
from kshot.errors import KshotError
from kshot.runs import Run

LONG = ["train", *TINY, "--max-epochs", 40, "--patience", 0, "--run", "run"]


def prepare(folder: Path) -> None:
    """Two trained runs, and photographs."""
    prepare_tiny(folder / "root")
    os.environ["KSHOT_ROOT"] = str(folder / "root")
    write_photographs(folder / "photographs", classes=6, images=3)
    write_photographs(folder / "earlier", classes=7, images=2)
    before = Path.cwd()
    os.chdir(folder)
    for name, seed in (("a", 0), ("b", 1)):
        assert command(["train", *TINY, "--seed", seed, "--run", name]).code == 0
        assert command(["evaluate", name, *MEASURE]).code == 0
    os.chdir(before)


def _ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.01)
    raise TimeoutError(f"{path} does not come")


def two_trainings(folder: Path, dice: random.Random) -> str:
    """Other options, one folder: one trains, and the other is told."""
    words = ["train", *TINY, "--run", "run"]
    errors = [Path("err-0"), Path("err-1")]
    processes = [start([*words, "--seed", seed], err=err) for seed, err in enumerate(errors)]
    codes = [_ended(process) for process in processes]
    if sorted(codes) != [0, 2]:
        return f"the trainings ended with {codes}"
    said = errors[codes.index(2)].read_text()
    if "by process" not in said and "holds a trained run" not in said and "in use by another process" not in said:
        return f"the second was told {said}"
    run = Run("run")
    run.load()
    return "" if run.config["training"]["seed"] == codes.index(0) else "the folder is of the one that was refused"


def resume_of_a_running_run(folder: Path, dice: random.Random) -> str:
    """A run that is trained is not trained twice."""
    process = start(LONG)
    _wait_for(Path("run/checkpoints/last.pt"))
    time.sleep(dice.uniform(0, 0.3))
    answer = command(["train", "--resume", "run", "--progress", "false"])
    code = _ended(process)
    if code != 0:
        return f"the training ended with {code}"
    if answer.code != 0 and ("by process" not in answer.err or refusal(answer)):
        return f"the resume ended with {answer}"
    run_content(Path("run"))
    return ""


def _measured(run: Path) -> dict[str, list[float]]:
    """What was measured of a run, by what identifies its weights."""
    contents = [json.loads(path.read_text()) for path in (run / "evaluation").glob("*.json")]
    return {content["weights"]: content["values"] for content in contents}


def best_replaced_while_measured(folder: Path, setting: Path, dice: random.Random) -> str:
    """Each evaluation is stamped with the weights that were measured, whichever these were."""
    shutil.copytree(setting / "a", "run")
    files = [(setting / name / "checkpoints" / "best.pt").read_bytes() for name in ("a", "b")]
    expected = _measured(setting / "a") | _measured(setting / "b")
    shutil.rmtree("run/evaluation")
    process, moment = start(["evaluate", "run", *MEASURE]), 0
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        moment += 1
        Path("new.pt").write_bytes(files[moment % 2])
        os.replace("new.pt", "run/checkpoints/best.pt")
        time.sleep(dice.uniform(0, 0.02))
    code = _ended(process)
    for weights, values in _measured(Path("run")).items():
        if expected[weights] != values:
            return "an evaluation is stamped with other weights than were measured"
    return "" if code in (0, 2) else f"the evaluation ended with {code}"


def removed_while_trained(folder: Path, dice: random.Random) -> str:
    """A training whose folder goes does not end with success and a folder that is no run."""
    process = start(LONG, err=Path("err"))
    _wait_for(Path("run/config.yaml"))
    time.sleep(dice.uniform(0, 0.5))
    if dice.random() < 0.5:
        shutil.rmtree("run", ignore_errors=True)
    else:
        os.rename("run", "elsewhere")
    code = _ended(process)
    if code == 0:
        try:
            Run("run" if Path("run").exists() else "elsewhere").load()
        except KshotError as error:
            return f"success without a run: {error}"
        return ""
    said = Path("err").read_text()
    if code != 2 or not said.splitlines()[-1].startswith("error: ") or "Traceback" in said:
        return f"the training ended with {code}: {said}"
    return ""


def two_preparations(folder: Path, setting: Path, dice: random.Random) -> str:
    """Two preparations of one name: what is there in the end is one of them, whole."""
    words = ["data", "prepare", "folder", "--name", "mine", "--size", 8, "--root", "root", "--overwrite", "--source"]
    processes = [start([*words, setting / tree]) for tree in ("photographs", "earlier")]
    codes = [_ended(process) for process in processes]
    if not set(codes) <= {0, 2} or 0 not in codes:
        return f"the preparations ended with {codes}"
    data.verify("mine", "root")
    left = [path.name for path in Path("root").iterdir() if path.name != "mine"]
    return f"left behind: {left}" if left else ""


def replaced_while_used(folder: Path, setting: Path, dice: random.Random) -> str:
    """A dataset that is prepared again while it is trained on, or verified: the old one or the new one, never both."""
    words = ["data", "prepare", "folder", "--name", "mine", "--size", 8, "--root", "root", "--overwrite", "--source"]
    assert command([*words, setting / "earlier"]).code == 0
    process = start([*words, setting / "photographs"])
    answers = [command(["data", "verify", "mine", "--root", "root"]) for _ in range(3)]
    code = _ended(process)
    wrong = [answer for answer in answers if answer.code != 0 and refusal(answer)]
    if code != 0 or wrong:
        return f"the preparation ended with {code}, and the readers with {wrong}"
    data.verify("mine", "root")
    return ""


def killed_and_resumed_at_once(folder: Path, dice: random.Random) -> str:
    """The lock of a process that was killed holds nothing."""
    process = start(LONG)
    _wait_for(Path("run/checkpoints/last.pt"))
    time.sleep(dice.uniform(0, 0.2))
    os.kill(process, signal.SIGKILL)
    _ended(process)
    answer = command(["train", "--resume", "run", "--progress", "false"])
    if answer.code != 0:
        return f"the resume ended with {answer}"
    run_content(Path("run"))
    return ""


def cases(folder: Path, *, seed: int, count: int) -> Iterator[Case]:
    """This many races, each kind in turn."""
    prepare(folder)
    alone: list[Callable[[Path, random.Random], str]] = [
        two_trainings,
        resume_of_a_running_run,
        removed_while_trained,
        killed_and_resumed_at_once,
    ]
    with_setting: list[Callable[[Path, Path, random.Random], str]] = [
        best_replaced_while_measured,
        two_preparations,
        replaced_while_used,
    ]
    kinds: list[tuple[str, Callable[[Path, random.Random], str]]] = [(each.__name__, each) for each in alone]
    for each in with_setting:
        kinds.append((each.__name__, lambda place, dice, each=each: each(place, folder, dice)))
    for number in range(count):
        name, act = kinds[number % len(kinds)]
        dice = random.Random(f"race-{seed}-{number}")
        yield Case(
            f"race: {name.replace('_', ' ')}",
            f"seed {seed}-{number}",
            lambda place, act=act, dice=dice: act(place, dice),
            memory=8 << 30,
        )
