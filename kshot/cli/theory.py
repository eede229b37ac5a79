"""`kshot theory`: experiments on the theory; the options are those of the chosen experiment's constructor."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch

from kshot.cli.options import Options
from kshot.errors import ConfigError
from kshot.files import write_json, write_text
from kshot.report import pictures
from kshot.theory import experiments

_HELP = """usage: kshot theory NAME [options]

Put a statement of the theory to the test: a table (CSV), a picture (PNG) and a line of verdict.

experiments:
{experiments}

examples:
  kshot theory closeness-depth
  kshot theory closeness-depth --depths 10 20 30 --seeds 0 1 2 --out somewhere

`kshot theory NAME --help` explains the options of an experiment.
"""


def run(arguments: Sequence[str]) -> None:
    """Run one experiment, write its files, print its verdict."""
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:24}{_first_line(name)}" for name in experiments]
        print(_HELP.format(experiments="\n".join(lines)), end="")
        return
    name, *rest = arguments
    if name.startswith("-"):
        raise ConfigError(f"the experiment comes first, before {name}; kshot theory --help lists them")
    experiment_class = experiments[name]
    options = Options(f"kshot theory {name}", inspect.getdoc(experiment_class) or "", [f"kshot theory {name}"])
    options.add_signature(experiment_class, "options of the experiment")
    options.add("--out", Path, Path("theory"), "folder for the table, the picture and the verdict")
    given = options.parse(rest).as_dict()
    out = given.pop("out")
    experiment = experiment_class(**given)
    findings = experiment.run(progress=True)
    write_text(out / f"{name}.csv", findings.csv())
    record = {"verdict": findings.verdict, "options": experiment.options, "torch": torch.__version__}
    write_json(out / f"{name}.json", record)
    pictures.save(findings.figure(), out / f"{name}.png")
    print(findings.verdict)
    print(f"wrote {out / name}.csv, .png and .json")


def _first_line(name: str) -> str:
    return (inspect.getdoc(experiments[name]) or "").splitlines()[0].rstrip(".")
