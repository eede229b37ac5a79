"""Datasets by name: list them, prepare them, load them, verify them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kshot.data import store, writing
from kshot.data.dataset import Dataset
from kshot.data.sources import SOURCES
from kshot.data.sources.folder import fingerprint
from kshot.errors import ConfigError, DataError

FOLDER_PREFIX = "folder:"


@dataclass(frozen=True)
class CatalogEntry:
    """One dataset as ``kshot data list`` shows it; size_bytes is 0 where it is not prepared."""

    name: str
    description: str
    classes: str
    obtain: str
    prepared: bool
    size_bytes: int


def catalog(root: Path | str | None = None) -> list[CatalogEntry]:
    """Every named dataset, and then the user's own prepared ones."""
    own = (folder.parent.name for folder in sorted(store.cache_root(root).glob("[!.]*/meta.json")))
    return [_entry(name, root) for name in dict.fromkeys([*SOURCES, *own])]


def _entry(name: str, root: Path | str | None) -> CatalogEntry:
    source = SOURCES.get(name)
    if not store.is_prepared(name, root) and source is not None:
        return CatalogEntry(name, source.description, source.classes, source.obtain, False, 0)
    try:
        found = store.summary(name, root)
    except DataError as error:  # one damaged dataset must not hide the others
        return CatalogEntry(name, str(error), "?", "damaged", False, 0)
    description, obtain = (found.origin, "prepared here") if source is None else (source.description, source.obtain)
    return CatalogEntry(name, description, found.classes, obtain, True, found.size_bytes)


def prepare(
    dataset: str,
    source: Path | str | None = None,
    *,
    name: str | None = None,
    root: Path | str | None = None,
    parts: Sequence[str] | None = None,
    size: int | None = None,
    fractions: tuple[float, float, float] | None = None,
    seed: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Turn a dataset's files into the prepared form; returns its folder.

    dataset: a name of the catalog; ``folder`` and ``mixture`` are the two that a user fills with his own content
    source: the publisher's file or folder; where it is None, what can be downloaded is downloaded
    name: what the prepared dataset is called; needed for ``folder`` and ``mixture``, the dataset's own name by default
    root: the folder of prepared datasets; by default $KSHOT_ROOT, or the cache folder of this platform
    parts: ``mixture`` alone: the names of the prepared datasets that become its domains
    size: ``folder`` and ``mixture``: images become squares of this side; 84, or the largest part's, by default
    fractions: ``folder``: the share of the classes in train, val and test, 0.64 0.16 0.2 by default
    seed: ``folder``: which classes go where, 0 by default
    overwrite: replace the dataset of this name, once the new one is complete
    Raises DataError where the files are missing, damaged or of another version, ConfigError for an option that the
    dataset does not have.
    """
    if dataset not in SOURCES:
        raise ConfigError(f"there is no dataset {dataset!r}; choose one of: {', '.join(SOURCES)}")
    given = {"parts": parts, "size": size, "fractions": fractions, "seed": seed}
    options = {option: value for option, value in given.items() if value is not None}
    allowed = inspect.signature(SOURCES[dataset]).parameters
    for option in options:
        if option not in allowed:
            raise ConfigError(f"{dataset} has no option {option!r}; its options: {', '.join(allowed) or 'none'}")
    if source is not None and not SOURCES[dataset].reads_files:
        raise ConfigError(f"{dataset} reads no files; leave out the source. {SOURCES[dataset].obtain}")
    if dataset == "mixture" and parts is None:
        raise ConfigError(
            "say which prepared datasets to mix: kshot data prepare mixture --parts A B --name my-mixture"
        )
    target = _checked_name(dataset, name)
    if store.is_prepared(target, root) and not overwrite:  # said before hours of work, and not only after them
        raise DataError(f"{target} is already prepared in {store.cache_root(root)}; to do it anew, add --overwrite")
    path = None if source is None else Path(source).expanduser()
    contents = SOURCES[dataset](**options).read(path, store.cache_root(root))
    return writing.write(target, contents, root, overwrite=overwrite)


def load(name: str, root: Path | str | None = None) -> Dataset:
    """A dataset by name, memory-mapped.

    ``glyphs`` needs no files and is prepared on the way, and so is a folder of the user's own images,
    ``folder:PATH``, at the first use and whenever its files have changed. Everything else must have been prepared:
    DataError says with which command, and where its files can be had.
    """
    if name.startswith(FOLDER_PREFIX):
        tree = Path(name.removeprefix(FOLDER_PREFIX)).expanduser()
        if not tree.is_dir():
            raise DataError(f"{tree} is not a folder; write folder:PATH with the folder that holds the class folders")
        prepared = f"folder-{re.sub('[^A-Za-z0-9._-]', '_', tree.resolve().name)}-{fingerprint(tree)}"
        _prepare_once("folder", prepared, tree, root)
        return store.load(prepared, root)
    if name == "glyphs":
        _prepare_once(name, name, None, root)
    elif name in SOURCES and not store.is_prepared(name, root):
        raise DataError(f"{name} is not prepared in {store.cache_root(root)}. {SOURCES[name].how_to_prepare()}")
    elif not store.is_prepared(name, root):
        known = ", ".join(entry.name for entry in catalog(root) if entry.name not in ("folder", "mixture"))
        raise DataError(
            f"there is no dataset {name!r} in {store.cache_root(root)}; choose folder:PATH or one of: {known}"
        )
    return store.load(name, root)


def _prepare_once(dataset: str, name: str, source: Path | None, root: Path | str | None) -> None:
    if store.is_prepared(name, root):
        return
    try:
        prepare(dataset, source, name=name, root=root)
    except DataError:
        if not store.is_prepared(name, root):  # otherwise another process was faster
            raise


def _checked_name(dataset: str, name: str | None) -> str:
    own = dataset in ("folder", "mixture")
    if name is None:
        if own:
            raise ConfigError(f"give the prepared dataset a name: kshot data prepare {dataset} --name my-{dataset} ...")
        return dataset
    if name in SOURCES and (own or name != dataset):
        raise ConfigError(f"{name!r} is the name of a dataset of the catalog; choose another --name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"the name {name!r} must consist of letters, digits, dots, hyphens and underscores")
    return name
