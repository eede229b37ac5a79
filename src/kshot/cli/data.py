"""`kshot data`: list, prepare, verify and show datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from kshot import data
from kshot.cli.dispatch import dispatch
from kshot.cli.options import ROOT_TEXT, Options
from kshot.data.catalog import source_named
from kshot.data.dataset import SplitName
from kshot.data.sources import SOURCES
from kshot.data.tasks import fitting_shape
from kshot.errors import check_positive

_HELP = """usage: kshot data list|prepare|verify|show [options]

commands:
  list                show all datasets, where each can be had, and which ones are prepared
  prepare NAME        turn a dataset's files into the form that training reads
  verify NAME         read a prepared dataset through: checksum, counts, splits
  show NAME           draw a contact sheet of sampled tasks

examples:
  kshot data list
  kshot data prepare cifar-fs
  kshot data prepare folder --name my-birds --source ~/photos/birds
  kshot data show glyphs --ways 5 --shots 1

`kshot data prepare --help` (verify, show) explains the options.
"""


def run(arguments: Sequence[str]) -> None:
    """Dispatch to list, prepare, verify or show."""
    actions = {"list": _list, "prepare": _prepare, "verify": _verify, "show": _show}
    dispatch("kshot data", arguments, actions, help_text=_HELP)


def _list(arguments: Sequence[str]) -> None:
    """List all datasets.

    Examples
    --------
    kshot data list
    """
    options = Options.of("kshot data list", _list)
    options.add("--root", Path | None, text=ROOT_TEXT)
    root = options.parse(arguments).root
    entries = data.catalog(root)
    rows = [
        [entry.name, entry.classes, _size(entry.size_bytes) if entry.size_bytes else "-", entry.description]
        for entry in entries
    ]
    print(tabulate(rows, headers=["dataset", "classes", "prepared", "what it is"], maxcolwidths=[None, 26, None, 60]))
    print(f"\nPrepared datasets are in {data.cache_root(root)}")
    missing = [entry for entry in entries if not entry.prepared]
    if missing:
        print("\nWhere the others can be had:")
    for entry in missing:
        print(f"  {entry.name}: {entry.obtain}")


def _prepare(arguments: Sequence[str]) -> None:
    """Turn a dataset's files into the one form that everything else reads: a memory-mapped array with checksums.

    Some datasets have their own options: kshot data prepare folder --help shows them.

    Examples
    --------
    kshot data prepare glyphs
    kshot data prepare cifar-fs --source ~/downloads/cifar-100-python.tar.gz
    kshot data prepare folder --name my-birds --source ~/photos/birds --size 84
    kshot data prepare folder --name scans --source ~/ct --min-images 20 --value-range -1000 3000
    """
    dataset = next((word for word in arguments if word in SOURCES), None)
    if dataset is None and arguments and not arguments[0].startswith("-"):
        dataset = arguments[0]
    options = Options.of(
        " ".join(["kshot data prepare", *([dataset] if dataset is not None else [])]),
        _prepare,
        positional="NAME" if dataset is None else "",
    )
    options.add_signature(data.prepare, "source and place", positional=["dataset"])
    if dataset is not None:
        options.add_signature(source_named(dataset), f"options of {dataset}")
    given = options.parse(arguments).as_dict()
    folder = data.prepare(**given)
    print(f"prepared {folder.name} in {folder}")
    print(f"Look at its tasks with: kshot data show {folder.name}")


def _verify(arguments: Sequence[str]) -> None:
    """Read a prepared dataset through and compare checksum, counts and splits with what was prepared.

    Examples
    --------
    kshot data verify cifar-fs
    """
    options = Options.of("kshot data verify", _verify, positional="NAME")
    options.add("name", str, text="the prepared dataset")
    options.add("--root", Path | None, text=ROOT_TEXT)
    given = options.parse(arguments)
    print(data.verify(given.name, given.root))


def _show(arguments: Sequence[str]) -> None:
    """Write a contact sheet of sampled tasks: support images on the left, query images on the right.

    Examples
    --------
    kshot data show glyphs
    kshot data show cifar-fs --split test --ways 5 --shots 1 --out tasks.png
    """
    options = Options.of("kshot data show", _show, positional="NAME")
    options.add("name", str, text="a dataset, or folder:PATH")
    options.add("--split", SplitName, default="test", text="the classes to draw from")
    options.add("--ways", int | None, text="classes per task; by default 5, or all classes of a smaller split")
    options.add("--shots", int | None, text="support images per class; by default 5, or half of the smallest class")
    options.add("--queries", int | None, text="query images per class; by default 5, or what the shots leave")
    options.add("--tasks", int, default=6, text="how many tasks to show")
    options.add("--seed", int, default=0, text="names the set of tasks")
    options.add("--out", Path | None, text="the picture; by default DATASET-SPLIT.png in this folder")
    options.add("--root", Path | None, text=ROOT_TEXT)
    given = options.parse(arguments)
    check_positive(tasks=given.tasks)
    from kshot.report import pictures

    split = data.load_images(given.name, given.root).split(given.split)
    shape = fitting_shape(split, ways=given.ways, shots=given.shots, queries=given.queries)
    episodes = data.EpisodeSampler(split, shape, seed=given.seed).episodes(np.arange(given.tasks))
    title = f"{split.dataset}/{given.split}: {shape.ways}-way {shape.shots}-shot tasks, seed {given.seed}"
    # not the name as typed, which is a path for folder:PATH
    out = given.out or Path(f"{split.dataset}-{given.split}.png")
    print(f"wrote {pictures.save(pictures.contact_sheet(episodes, title), out)}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
