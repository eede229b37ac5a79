"""The attacks in full: `python -m attack --seed 0`, with tests/ on the path; `make attack` runs it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import torch
from attack import children, hostile, kills, mutations, races, values
from attack.tally import Tally

ATTACKS = {"kills": 120, "mutations": 1500, "values": 1000, "hostile": 160, "races": 56}
CASES = {
    "kills": kills.cases,
    "mutations": mutations.cases,
    "values": values.cases,
    "hostile": hostile.cases,
    "races": races.cases,
}
# what the children would otherwise import, each for itself
_COMMANDS = [f"kshot.cli.{command}" for command in ("train", "evaluate", "report", "classify", "tsa", "data", "theory")]
_IMPORTED = [*_COMMANDS, "matplotlib.figure", "torch._dynamo", "sklearn.linear_model"]


def main() -> int:
    """Run the attacks, print what was tried, held and failed; the exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="cases that run at once")
    for kind, count in ATTACKS.items():
        parser.add_argument(f"--{kind}", type=int, default=count)
    given = vars(parser.parse_args())
    torch.set_num_threads(1)
    for module in _IMPORTED:
        import_module(module)
    tally = Tally()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        contextlib.suppress(KeyboardInterrupt),
    ):  # which ends with what was tried
        for kind in ATTACKS:
            if given[kind]:
                started, place = time.monotonic(), Path(folder) / kind
                some = CASES[kind](place / "setting", seed=given["seed"], count=given[kind])
                children.attack(some, place / "cases", tally=tally, workers=given["workers"])
                print(f"{kind}: {time.monotonic() - started:.0f} s", flush=True)
    print(tally)
    return 1 if tally.failed else 0


sys.exit(main())
