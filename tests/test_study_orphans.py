"""No process of a study outlives the one that started it, however that one ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

PARENT = """
import signal, subprocess, sys
from functools import partial
from kshot.studies.engines.local import end_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         preexec_fn=partial(end_with_parent, signal.{by}))
print(child.pid, flush=True)
child.wait()
"""


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("by", ["SIGTERM", "SIGKILL"])
def test_a_process_ends_with_a_parent_that_was_killed(by: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(by=by)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    left = alive(child)
    if left:
        os.kill(child, signal.SIGKILL)
    assert not left
