"""The attacks in full: `python -m attack --seed 0`, with tests/ on the path; `make attack` runs it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from attack import mutations
from attack.tally import Tally


def main() -> int:
    """Run the attacks, print what was tried, held and failed; the exit code is 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="make attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutations", type=int, default=1500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        mutations.attack(Path(folder) / "mutations", seed=given.seed, cases=given.mutations, tally=tally)
    for line in tally.failed:
        print(f"FAILED {line}")
    print(tally)
    return 1 if tally.failed else 0


sys.exit(main())
