"""Files that survive a kill: written next to their place, flushed to disk, then renamed to it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Call ``write(file)`` on a temporary file next to `path`, flush it to disk, and rename it to `path`.

    Whatever fails (a full disk, a kill) leaves the previous `path` as it was; OSError is passed on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        # a failed write names no file, and a failed open names the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    write_atomically(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
    text = io.StringIO()
    writer = csv.DictWriter(text, titles, extrasaction="raise" if columns is None else "ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write `csv_text` of the rows to `path`, atomically."""
    write_text(path, csv_text(rows, columns))


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file, read in pieces."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()
