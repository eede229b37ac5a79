"""Files that survive a kill: written next to their place, flushed to disk, then renamed to it."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import os
import re
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import platformdirs

ROOT_VARIABLE = "KSHOT_ROOT"
_TEMPORARY = ".tmp"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[-+]?\d[\d.eE+-]*")
_A_DAY = 24 * 3600  # seconds
_HOST = socket.gethostname().replace(".", "-")


def cache_root(root: Path | str | None = None) -> Path:
    """The folder of all prepared datasets: `root`, else $KSHOT_ROOT, else the cache folder of this platform."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or platformdirs.user_cache_dir("kshot")).expanduser()


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call ``write(file)`` on a temporary file next to `path`, flush it to disk, and rename it to `path`.

    Whatever fails (a full disk, a kill) leaves the previous `path` as it was; OSError is passed on.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, and the name of a file is needed", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}{_TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        remove_leftovers(path.parent, f"{glob.escape(path.name)}.*")  # of processes that were killed
    except OSError as error:
        if error.errno is None:
            raise
        # a failed write names no file, and a failed open names the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def refusal(error: OSError) -> str:
    """Why the system refused to read or write a file, and what helps: "the disk is full; free some space"."""
    reasons = {
        (errno.ENOSPC, errno.EDQUOT): "the disk is full; free some space",
        (errno.EACCES, errno.EPERM): "permission is denied; correct the permissions, or choose another folder",
        (errno.EROFS,): "the disk is read-only; choose another folder",
        (errno.EIO,): "the disk has failed; choose another folder",
        (errno.ENOENT, errno.ENOTDIR): "there is no such file or folder; check the path",
        (errno.ENAMETOOLONG,): "the name is too long; choose a shorter one",
    }
    known = [text for numbers, text in reasons.items() if error.errno in numbers]
    return known[0] if known else f"{error.strerror or error}; check the path"


@contextmanager
def refused(error: type[Exception], *, missing: str, unreadable: str) -> Iterator[None]:
    """An `error` in place of the system's: `missing` for a file that is not there, or `unreadable` and the refusal."""
    try:
        yield
    except FileNotFoundError:
        raise error(missing) from None
    except OSError as problem:
        raise error(f"{unreadable}: {refusal(problem)}") from problem


def remove_leftovers(folder: Path, pattern: str = "*") -> None:
    """Remove the temporary files of `write_atomically` whose processes are gone; OSError is passed on.

    pattern: of the names of the files that they would have become.
    """
    for leftover in folder.glob(f".{pattern}{_TEMPORARY}"):
        *_, host, process = ["", *leftover.name.removesuffix(_TEMPORARY).rsplit(".", 2)]
        # a process of another machine may be writing, which only time can tell
        of_this_machine = host == _HOST and process.isdigit()
        if not is_running(int(process)) if of_this_machine else time.time() - leftover.stat().st_mtime > _A_DAY:
            leftover.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine; True if the system does not tell."""
    if os.name != "posix":  # elsewhere the question itself would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with None in the place of nan, which JSON does not have and a table leaves empty."""
    return {name: None if value != value else value for name, value in values.items()}


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV with a line of titles; floats keep all their digits, None becomes an empty cell.

    Parameters
    ----------
    rows
        One mapping from column to value per line.
    columns
        Columns to write, in this order; None for those of the first row, which every row must then have exactly.

    Raises
    ------
    ValueError
        If a row has a column that the first row lacks and `columns` is None.
    """
    titles = list(rows[0] if rows else ()) if columns is None else list(columns)
    surplus = [name for row in rows for name in row if name not in titles] if columns is None else []
    if surplus:
        raise ValueError(f"a row has the column {surplus[0]!r}, and the first one has none of this name")
    return csv_table(titles, [[row.get(name, "") for name in titles] for row in rows])


def csv_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Cells as CSV below a line of titles, as `csv_text` writes them; titles may occur twice.

    Spreadsheets take text that begins with =, +, - or @ for a formula, and obey it: such a text gets an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(title) for title in titles])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Text, or a path, as a spreadsheet may have it; anything else as it is."""
    if not isinstance(value, (str, PurePath)):
        return value
    text = str(value).encode("utf-8", "backslashreplace").decode()  # names of files may hold what is no text
    return f"'{text}" if text[:1] in _FORMULA and not _NUMBER.fullmatch(text) else text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> None:
    """Write `csv_text` of the rows to `path`, atomically."""
    write_text(path, csv_text(rows, columns))


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading; OSError for anything else, such as a pipe, whose end may never come."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        yield file


def read_bytes(path: Path, *, limit: int | None = None) -> bytes:
    """The content of a regular file; OSError for anything else.

    Parameters
    ----------
    path
        The file.
    limit
        The most bytes that it may have; None for any number.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and {limit} are the most", str(path))
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a pipe would otherwise wait for somebody to write into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: Path, *, limit: int | None = None) -> str:
    """The text of a regular file in UTF-8, as `read_bytes` reads it; UnicodeDecodeError if it is no such text."""
    return read_bytes(path, limit=limit).decode("utf-8")


def read_json(path: Path, *, limit: int | None = None) -> Any:
    """The content of a JSON file; OSError or ValueError if it cannot be read, also for what is nested too deeply."""
    try:
        return json.loads(read_text(path, limit=limit))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in pieces."""
    digest = hashlib.new(algorithm)
    with open_regular(path) as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
