"""Datasets by name: list them, prepare them, load them, verify them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kshot.data import store, writing
from kshot.data.dataset import Dataset
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.sources import SOURCES, Source
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError, DataError


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
    """Every named dataset, then the families of regression tasks, and then the user's own prepared datasets."""
    own = (folder.parent.name for folder in sorted(store.cache_root(root).glob("[!.]*/meta.json")))
    return [_entry(name, root) for name in dict.fromkeys([*SOURCES, *FAMILIES, *own])]


def _entry(name: str, root: Path | str | None) -> CatalogEntry:
    if name in FAMILIES:
        return CatalogEntry(name, FAMILIES[name].description, "-", "drawn as needed", True, 0)
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
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Turn a dataset's files into the prepared form; returns its folder.

    dataset: a name of the catalog
    source: the publisher's file or folder; where it is None, what can be downloaded is downloaded
    name: what the prepared dataset is called; by default the dataset's own name, needed for content of your own
    root: the folder of prepared datasets; by default $KSHOT_ROOT, or the cache folder of this platform
    overwrite: replace the dataset of this name, once the new one is complete
    options: those of this dataset, which are the constructor arguments of its source: `Folder`, `Mixture`
    Raises DataError where the files are missing, damaged or of another version, ConfigError for an option that the
    dataset does not have.
    """
    wanted = source_named(dataset)
    _check_options(wanted, options)
    if source is not None and not wanted.reads_files:
        raise ConfigError(f"{dataset} reads no files; leave out the source. {wanted.obtain}")
    target = _checked_name(wanted, name)
    if store.is_prepared(target, root) and not overwrite:  # said before hours of work, and not only after them
        raise DataError(f"{target} is already prepared in {store.cache_root(root)}; to do it anew, add --overwrite")
    path = None if source is None else Path(source).expanduser()
    contents = wanted(**options).read(path, store.cache_root(root))
    return writing.write(target, contents, root, overwrite=overwrite)


def source_named(dataset: str) -> type[Source]:
    """The source of a dataset of the catalog; ConfigError where there is none of this name."""
    if dataset in FAMILIES:
        raise ConfigError(f"{dataset} are drawn as they are needed: there is nothing to prepare")
    if dataset not in SOURCES:
        raise ConfigError(f"there is no dataset {dataset!r}; choose one of: {', '.join(SOURCES)}")
    return SOURCES[dataset]


def load(name: str, root: Path | str | None = None) -> AnyDataset:
    """A dataset by name, memory-mapped, or a family of regression tasks: ``sinusoids``, ``quadratics``.

    A dataset that needs no files, such as ``glyphs``, is prepared on the way, and so is what lies at a path, such as a
    folder of the user's own images, ``folder:PATH``, at the first use and whenever its files have changed. Everything
    else must have been prepared: DataError says with which command, and where its files can be had.
    """
    return RegressionDataset(FAMILIES[name]) if name in FAMILIES else load_images(name, root)


def load_images(name: str, root: Path | str | None = None) -> Dataset:
    """A dataset by name as `load` returns it, for what needs images; ConfigError for a family of regression tasks."""
    if name in FAMILIES:
        raise ConfigError(f"{name} are tasks of regression and hold no images; name a dataset of images")
    dataset, colon, place = name.partition(":")
    source = SOURCES.get(dataset)
    if colon and source is not None:
        path = Path(place).expanduser()
        name = source.name_for(path)
        _prepare_once(dataset, name, path, root)
    elif source is not None and source.automatic:
        _prepare_once(name, name, None, root)
    elif not store.is_prepared(name, root):
        where = store.cache_root(root)
        if source is not None:
            raise DataError(f"{name} is not prepared in {where}. {source.how_to_prepare()}")
        raise DataError(f"there is no dataset {name!r} in {where}; choose one of: {', '.join(_loadable(root))}")
    return store.load(name, root)


def _loadable(root: Path | str | None) -> list[str]:
    """What `load` may be asked for: names, and the forms that take a path."""
    unnamed = {source.name for source in SOURCES.values() if source.needs_name}
    forms = [f"{source.name}:PATH" for source in SOURCES.values() if source.loads_paths]
    return [*forms, *(entry.name for entry in catalog(root) if entry.name not in unnamed)]


def _prepare_once(dataset: str, name: str, source: Path | None, root: Path | str | None) -> None:
    if store.is_prepared(name, root):
        return
    try:
        prepare(dataset, source, name=name, root=root)
    except DataError:
        if not store.is_prepared(name, root):  # otherwise another process was faster
            raise


def _check_options(source: type[Source], options: dict[str, Any]) -> None:
    parameters = inspect.signature(source).parameters
    for option in options:
        if option not in parameters:
            known = ", ".join(parameters) or "none"
            raise ConfigError(f"{source.name} has no option {option!r}; its options: {known}")
    missing = [name for name, own in parameters.items() if own.default is own.empty and name not in options]
    if missing:
        raise ConfigError(
            f"{source.name} needs {', '.join(missing)}: kshot data prepare {source.name} {source.arguments}"
        )


def _checked_name(source: type[Source], name: str | None) -> str:
    if name is None:
        if source.needs_name:
            raise ConfigError(
                f"give the prepared dataset a name: kshot data prepare {source.name} --name my-{source.name} ..."
            )
        return source.name
    if name in FAMILIES or (name in SOURCES and (source.needs_name or name != source.name)):
        raise ConfigError(f"{name!r} is the name of a dataset of the catalog; choose another --name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"the name {name!r} must consist of letters, digits, dots, hyphens and underscores")
    return name
