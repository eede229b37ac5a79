"""The `kshot` command: one module a subcommand, each imported only when it is called."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from kshot.errors import NO_MEMORY, ConfigError, KshotError, did_you_mean

COMMANDS = {
    "demo": "train three learners on glyphs, compare them on unseen scripts (about two minutes on two cores)",
    "photos": "learn six drawn signs from five pictures each, and recognise new ones (half a minute)",
    "data": "list, prepare, verify and show datasets",
    "recipes": "list the recipes with their published values, or print one",
    "train": "train a learner, from a recipe or from options",
    "evaluate": "measure runs on the tasks of a split, with 95% intervals",
    "compare": "measure runs on the same tasks, with paired differences",
    "report": "write one self-contained HTML page about runs",
    "study": "run all trainings of a paper's table: list, plan, run, status, report",
    "results": "for contributors: build the repository's pages of results from the measured numbers",
    "classify": "recognise your own classes from a few photographs of each",
    "classifier": "keep classifiers of photographs: fit, predict, evaluate, show, export",
    "app": "open a page in the browser that learns from photographs",
    "tsa": "train TSA-MAML in its stages, and see what its groups of tasks are and what they gain",
    "regression": "measure and draw how learners fit functions such as sinusoids, before and after gradient steps",
    "theory": "put the theory of multi-task and meta-learning to the test: kernels, predictors, bounds",
}

_HELP = """usage: kshot COMMAND [options]

Few-shot learning: train and compare learners that recognise new classes from a handful of examples.

commands:
{commands}

examples:
  kshot demo
  kshot train --data glyphs --learner mtl --backbone conv4
  kshot evaluate runs/mtl-glyphs-conv4-seed0 --shots 1 5
  kshot train --recipe mtl-cifar-fs-5shot --set learner.normalize_over=batch
  kshot classify my_examples/ new_photos/
  kshot classifier fit my_examples/ --out mugs.kshot

`kshot COMMAND --help` explains the options of a command; `kshot --version` says which version this is.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 if cells of a study failed, 2 after an error, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    format_of_python, warnings.formatwarning = warnings.formatwarning, _format_warning
    # of Pillow; kshot has a limit of its own
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb")
    try:
        with contextlib.redirect_stdout(_EscapingOutput(sys.stdout)):
            code = _run(words)
            sys.stdout.flush()
        return code
    except KshotError as error:
        print(f"error: {_shown(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or else Python's exit flushes and complains
        return 0
    except OSError as error:
        from kshot.files import refusal

        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {_shown(f'{place}{refusal(error)}')}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in NO_MEMORY):
            raise
        print("error: there is not enough memory for these options; choose smaller ones", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"\nstopped{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = format_of_python


class _EscapingOutput(io.TextIOBase):
    """Output with the control characters of names escaped, which a terminal would obey, and what is no text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not text.isprintable():
            from kshot.report.names import printable

            text = "\n".join(map(printable, text.split("\n")))
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _format_warning(message: Warning | str, *_: object, **__: object) -> str:
    """A warning as a line of its own, without the line of code that it comes from."""
    return f"warning: {_shown(str(message))}\n"


def _shown(message: str) -> str:
    """A message with its own lists, whose lines are indented; line breaks and control characters of names escaped."""
    from kshot.report.names import printable

    return "\n  ".join(map(printable, message.split("\n  ")))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_HELP.format(commands="\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())), end="")
        return 0
    if words[0] == "--version":
        import kshot

        print(f"kshot {kshot.__version__}")
        return 0
    # Before torch is imported: waiting threads that spin for long starve those they wait for when cores are shared,
    # and threads that sleep at once wake up too late; a tenth of a millisecond or so of spinning costs neither.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    command, *rest = words
    if command not in COMMANDS:
        near = did_you_mean(command, COMMANDS)
        raise ConfigError(f"there is no command {command!r}{near}; kshot --help lists them all")
    try:
        if command in ("train", "tsa"):
            from kshot.cli import early

            early.check(words)
        import_module(f"kshot.cli.{command}").run(rest)
    except SystemExit as exit_:  # argparse leaves so after --help
        return int(exit_.code or 0)
    return 0
