"""A little of `make attack`, of each kind: kills, mutations, absurd values, hostile files, races."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COUNTS = {"kills": 2, "mutations": 12, "values": 10, "hostile": 6, "races": 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_a_little_of_each_attack_is_held() -> None:
    words = [word for kind, count in COUNTS.items() for word in (f"--{kind}", str(count))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    process = subprocess.run(
        [sys.executable, "-m", "attack", "--seed", "7", *words], env=environment, capture_output=True, text=True
    )
    assert "FAILED" not in process.stdout
    assert process.returncode == 0, process.stderr
    tried = re.findall(r" (\d+) +(\d+) +0$", process.stdout, re.MULTILINE)
    assert sum(int(count) for count, _ in tried) == sum(int(held) for _, held in tried) == sum(COUNTS.values())
