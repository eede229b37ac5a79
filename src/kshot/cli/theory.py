"""`kshot theory`: experiments on the theory; their options are the arguments of the experiment's constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kshot.cli.options import Options
from kshot.errors import ConfigError
from kshot.experiments.findings import Findings, experiments
from kshot.files import write_csv, write_json
from kshot.report import pictures

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
        lines = [f"  {name:24}{_first_line(name)}" for name in sorted(experiments)]
        print(_HELP.format(experiments="\n".join(lines)), end="")
        return
    name, *rest = arguments
    if name.startswith("-"):
        raise ConfigError(f"the experiment comes first, before {name}; kshot theory --help lists them")
    experiment_class = experiments[name]
    options = Options(f"kshot theory {name}", _description(name), [f"kshot theory {name}"])
    options.add_signature(experiment_class, "options of the experiment")
    options.add("--out", Path, default=Path("theory"), text="folder for the table, the picture and the verdict")
    given = options.parse(rest).as_dict()
    out = given.pop("out")
    experiment = experiment_class(**given)
    write_findings(experiment.run(progress=True), out, name=name, options=experiment.options)


def write_findings(findings: Findings, out: Path, *, name: str, options: Mapping[str, Any]) -> None:
    """Write the table, the picture, and the verdict with the options that led to it; print the verdict."""
    write_csv(out / f"{name}.csv", findings.rows)
    record = {"verdict": findings.verdict, "options": options, "torch": torch.__version__}
    write_json(out / f"{name}.json", record)
    pictures.save(findings.figure(), out / f"{name}.png")
    print(findings.verdict)
    print(f"wrote {out / name}.csv, .png and .json")


def _description(name: str) -> str:
    """The docstring of an experiment without the section on its options, which the help prints with the options."""
    return (inspect.getdoc(experiments[name]) or "").partition("\n\nParameters\n---")[0]


def _first_line(name: str) -> str:
    """What the list of experiments says about one."""
    return _description(name).splitlines()[0].rstrip(".")
