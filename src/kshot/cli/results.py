"""`kshot results`: the measured numbers of the repository as data, and the pages that are built from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kshot.cli.dispatch import dispatch
from kshot.cli.options import ROOT_TEXT, Options
from kshot.cli.study import add_study
from kshot.errors import DataError
from kshot.files import read_text
from kshot.studies import Study
from kshot.studies.records import add, build, write

_HELP = """usage: kshot results build|add [options]

In a clone of kshot, results/ holds one JSON for each measured cell; docs/results.md, the other pages that say so at
their top, and the measured numbers of README.md are built from them.

commands:
  build           build the pages
  add STUDY       take over what a study has measured

examples:
  kshot results build
  kshot results build --check
  kshot results add all-learners

`kshot results build --help` (add) explains the options.
"""


def run(arguments: Sequence[str]) -> None:
    """Dispatch to build or add."""
    actions = {"build": _build, "add": _add}
    dispatch("kshot results", arguments, actions, help_text=_HELP)


def _build(arguments: Sequence[str]) -> None:
    """Build docs/results.md, other pages and the measured numbers of README.md from results/.

    Examples
    --------
    kshot results build
    kshot results build --check
    """
    options = Options.of("kshot results build", _build)
    options.add("--repository", Path, default=Path("."), text="the clone of kshot", metavar="FOLDER")
    options.add("--check", bool, default=False, text="write nothing; fail if a page is out of date")
    given = options.parse(arguments)
    if given.check:
        pages = build(given.repository)
        stale = [path for path, text in pages.items() if not path.exists() or read_text(path) != text]
        if stale:
            raise DataError(f"out of date: {', '.join(map(str, stale))}; run: kshot results build")
        print(f"{len(pages)} pages are up to date")
        return
    changed = write(given.repository)
    print("\n".join(f"wrote {path}" for path in changed) or "the pages are up to date")


def _add(arguments: Sequence[str]) -> None:
    """Write one JSON to results/ for each entry of a study whose trainings are done.

    Examples
    --------
    kshot results add all-learners
    kshot results add my-study.yaml --out studies/mine
    """
    options = Options.of("kshot results add", _add, positional="STUDY")
    add_study(options)
    options.add("--root", Path | None, text=ROOT_TEXT)
    options.add("--repository", Path, default=Path("."), text="the clone of kshot", metavar="FOLDER")
    given = options.parse(arguments)
    for path in add(Study(given.study, folder=given.out, root=given.root), given.repository):
        print(f"wrote {path}")
