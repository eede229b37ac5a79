"""Datasets by name: list them, prepare them, load them, verify them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from kshot.data import store, writing
from kshot.data.archives import GET_IT_AGAIN
from kshot.data.dataset import Dataset
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.sources import SOURCES, Source
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError, DataError, KshotError, did_you_mean
from kshot.files import cache_root


@dataclass(frozen=True)
class CatalogEntry:
    """One dataset as ``kshot data list`` shows it.

    Parameters
    ----------
    name, description
        What the dataset is called, and what it is.
    classes
        How many, in train, val and test.
    obtain
        Where its files can be had.
    prepared
        Whether it can be loaded as it is.
    size_bytes
        Size of the prepared form, 0 without one.
    """

    name: str
    description: str
    classes: str
    obtain: str
    _: KW_ONLY
    prepared: bool
    size_bytes: int = 0


def catalog(root: Path | str | None = None) -> list[CatalogEntry]:
    """Every named dataset, then the families of regression tasks, and then the user's own prepared datasets.

    Parameters
    ----------
    root
        The folder of prepared datasets; None for $KSHOT_ROOT, or else the platform's cache folder.
    """
    prepared = (folder.parent.name for folder in sorted(cache_root(root).glob("[!.]*/meta.json")))
    return [_entry(name, root) for name in dict.fromkeys([*SOURCES, *FAMILIES, *prepared])]


def _entry(name: str, root: Path | str | None) -> CatalogEntry:
    entry = partial(CatalogEntry, name)
    if name in FAMILIES:
        return entry(FAMILIES[name].description, "-", "drawn as needed", prepared=True)
    source = SOURCES.get(name)
    if not store.is_prepared(name, root) and source is not None:
        return entry(source.description, source.classes, source.obtain, prepared=False)
    try:
        found = store.summary(name, root)
    except DataError as error:  # one damaged dataset must not hide the others
        return entry(str(error), "?", "damaged", prepared=False)
    description, obtain = (found.origin, "prepared here") if source is None else (source.description, source.obtain)
    return entry(description, found.classes, obtain, prepared=True, size_bytes=found.size_bytes)


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

    Parameters
    ----------
    dataset
        A name of the catalog.
    source
        The publisher's file or folder; None to download what can be downloaded.
    name
        What the prepared dataset is called; by default the dataset's own name, needed for your own content.
    root
        Folder of prepared datasets; by default $KSHOT_ROOT, or else the platform's cache folder.
    overwrite
        Replace the dataset of this name, once the new one is complete.
    **options
        Those of this dataset, which are the constructor arguments of its source, such as `Folder` or `Mixture`.

    Raises
    ------
    DataError
        If files are missing, damaged or of another version.
    ConfigError
        If the dataset is unknown or does not have such an option.
    """
    wanted = source_named(dataset)
    _check_options(wanted, options)
    if source is not None and not wanted.reads_files:
        raise ConfigError(f"{dataset} reads no files; leave out the source. {wanted.obtain}")
    target = _checked_name(wanted, name)
    if store.is_prepared(target, root) and not overwrite:  # said before hours of work, and not only after them
        raise DataError(f"{target} is already prepared in {cache_root(root)}; to replace it, add --overwrite")
    path = None if source is None else Path(source).expanduser()
    reader = wanted(**options)
    with _naming_files(dataset, path):
        contents = reader.read(path, cache_root(root))
    batches = _each_naming_files(contents.batches, dataset, path)
    return writing.write(target, replace(contents, batches=batches), root=root, overwrite=overwrite)


@contextmanager
def _naming_files(dataset: str, path: Path | None) -> Iterator[None]:
    """DataError for what a publisher's files of another form make their reading raise."""
    try:
        yield
    except KshotError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        if path is None:
            raise
        raise DataError(f"{path} is not as {dataset} is published ({error!r:.200}): {GET_IT_AGAIN}") from error


def _each_naming_files(batches: Iterable[writing.Batch], dataset: str, path: Path | None) -> Iterator[writing.Batch]:
    """The batches, whose reading raises as `_naming_files` says."""
    with _naming_files(dataset, path):
        yield from batches


def source_named(dataset: str) -> type[Source]:
    """The source of a dataset of the catalog; ConfigError if there is none of this name."""
    if dataset in FAMILIES:
        raise ConfigError(f"{dataset} are drawn as they are needed: there is nothing to prepare")
    if dataset not in SOURCES:
        near = did_you_mean(dataset, SOURCES)
        raise ConfigError(f"there is no dataset {dataset!r}{near}; choose one of: {', '.join(SOURCES)}")
    return SOURCES[dataset]


def load(name: str, root: Path | str | None = None) -> AnyDataset:
    """Open a dataset by name, memory-mapped, or a family of regression tasks, such as ``sinusoids``.

    A dataset that needs no files, such as ``glyphs``, is prepared on the way, and so is a folder of the user's own
    images, ``folder:PATH``, at the first use and whenever its files have changed.

    Parameters
    ----------
    name
        A name of the catalog or of a prepared dataset, or ``folder:PATH``.
    root
        Folder of prepared datasets; by default $KSHOT_ROOT, or else the platform's cache folder.

    Raises
    ------
    DataError
        If the dataset must be prepared first: it says with which command, and where its files can be had.
    """
    return RegressionDataset(FAMILIES[name]) if name in FAMILIES else load_images(name, root)


def load_images(name: str, root: Path | str | None = None) -> Dataset:
    """What `load` returns for this `name` and `root`; ConfigError for a family of functions, which has no images."""
    return store.load(_prepared_name(name, root), root)


def verify(name: str, root: Path | str | None = None) -> str:
    """Read a prepared dataset through and return one line about it.

    Parameters
    ----------
    name, root
        As for `load`.

    Raises
    ------
    DataError
        If the dataset is unknown or not prepared, or its checksum, counts or splits differ from what was prepared.
    """
    return store.verify(_prepared_name(name, root), root)


def _prepared_name(name: str, root: Path | str | None) -> str:
    """The name of the prepared form of a dataset, which is prepared here if that takes neither files nor options."""
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
        where = cache_root(root)
        if source is not None:
            raise DataError(f"{name} is not prepared in {where}. {source.how_to_prepare()}")
        known = _loadable(root)
        raise DataError(
            f"there is no dataset {name!r} in {where}{did_you_mean(name, known)}; choose one of: {', '.join(known)}"
        )
    return name


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
            near = did_you_mean(option, parameters)
            raise ConfigError(f"{source.name} has no option {option!r}{near}; its options: {known}")
    missing = [name for name, known in parameters.items() if known.default is known.empty and name not in options]
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
