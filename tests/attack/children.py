"""Cases in forked children, which have torch imported, an empty folder each, and bounds on memory and time."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from attack.tally import Answer, Tally

from kshot.cli import main

MEMORY = 3 << 30  # bytes of address space that a case may add to what it starts with
SECONDS = 3600.0  # that a case may take, on a machine that is busy with something else
_WAITING = 40  # times its processor time, which a command that waits may take


@dataclass(frozen=True)
class Case:
    """One attack: `act` gets an empty folder, and returns what went wrong; empty if it was held."""

    kind: str
    name: str
    act: Callable[[Path], str]
    memory: int = MEMORY
    seconds: float = SECONDS


def attack(cases: Iterable[Case], folder: Path, *, tally: Tally, workers: int = 2) -> None:
    """Run each case in a child of its own, `workers` at once, and count what became of it."""
    running: dict[int, tuple[Case, Path, float]] = {}
    try:
        for number, case in enumerate(cases):
            while len(running) >= workers:
                _collect(running, tally)
            place = folder / f"{number}"
            place.mkdir(parents=True)
            running[_forked(lambda case=case, place=place: _run(case, place))] = case, place, time.monotonic()
        while running:
            _collect(running, tally)
    finally:  # after Ctrl-C some are left
        for process in running:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _collect(running: dict[int, tuple[Case, Path, float]], tally: Tally) -> None:
    """Wait for a child, or kill one that hangs."""
    for process, (case, place, started) in list(running.items()):
        late = time.monotonic() - started > case.seconds
        if late:
            os.killpg(process, signal.SIGKILL)
        if not os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | (0 if late else os.WNOHANG)):
            continue
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        verdict = place.with_suffix(".verdict")
        said = verdict.read_text() if verdict.exists() else f"the case ended with {status}"
        tally.count(case.kind, case.name, "hangs" if late else said)
        verdict.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        del running[process]
        return
    time.sleep(0.01)


def _forked(act: Callable[[], object]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        os.setpgid(0, 0)
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _run(case: Case, place: Path) -> None:
    os.chdir(place)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + case.memory, resource.RLIM_INFINITY))
    try:
        said = case.act(place)
    except BaseException:  # of the attack itself
        said = f"the attack failed: {traceback.format_exc()}"
    place.with_suffix(".verdict").write_text(said, errors="backslashreplace")


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def command(words: Iterable[object], *, seconds: float = 15.0, hook: Callable[[], None] | None = None) -> Answer:
    """Run a command in a forked child; its code is that of the process, and minus the signal that ended it.

    Parameters
    ----------
    words
        The command line, without "kshot".
    seconds
        Of processor time, after which Ctrl-C comes. It also comes after 40 times as many of any time, and then a kill.
    hook
        Called in the child before the command.
    """
    out, err = Path(f".out-{time.monotonic_ns()}"), Path(f".err-{time.monotonic_ns()}")
    process = start(words, out=out, err=err, seconds=seconds, hook=hook)
    ends = time.monotonic() + 1.5 * _WAITING * seconds
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        if time.monotonic() > ends:
            os.kill(process, signal.SIGKILL)
            ends = float("inf")
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    texts = [path.read_text(errors="surrogateescape") for path in (out, err)]
    out.unlink()
    err.unlink()
    return Answer(code, *texts, texts[1] if code == 99 else "")


def start(
    words: Iterable[object],
    *,
    out: Path = Path(os.devnull),
    err: Path = Path(os.devnull),
    seconds: float = 3600.0,
    hook: Callable[[], None] | None = None,
) -> int:
    """Start a command in a forked child, and return its process; parameters as for `command`."""

    def act() -> None:
        signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for path, stream in ((out, sys.stdout), (err, sys.stderr)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, _WAITING * seconds)
        if hook is not None:
            hook()
        code = main([os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in words])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    return _forked(act)
