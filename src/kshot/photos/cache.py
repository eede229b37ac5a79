"""Features of photographs that were computed before, found again by the content of the files."""

from __future__ import annotations

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kshot.files import open_regular

T = TypeVar("T")
Entry = tuple[Tensor, NDArray[np.uint8]]  # the features (D,) of a photograph, and its thumbnail (H, W, C)

DEFAULT = Path(platformdirs.user_cache_dir("kshot")) / "photo-features.sqlite"
_AT_ONCE = 500  # keys in one question, of which SQLite takes 999
_FORGET = """
DELETE FROM entries WHERE key IN
(SELECT key FROM entries ORDER BY day, rowid LIMIT max(1, (SELECT count(*) / 4 FROM entries)))
"""


class FeatureCache:
    """A file of features and thumbnails that may be deleted at any time, and never fails: it forgets instead.

    Parameters
    ----------
    path
        The SQLite file; None for photo-features.sqlite in the cache folder of this platform.
    largest
        Bytes of the file above which what was not used for longest is forgotten.
    """

    def __init__(self, path: Path | None = None, *, largest: int = 512 << 20) -> None:
        self.path = path or DEFAULT
        self.largest = largest

    def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries of those of the keys that are known."""
        return self._attempt(lambda database: dict(_found(database, keys))) or {}

    def keep(self, entries: Mapping[str, Entry]) -> None:
        """Remember entries, and forget those that were not used for longest if the file grows too large."""
        rows = [(key, _packed(*entry), _today()) for key, entry in entries.items()]

        def write(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
            while _size(database) > self.largest and database.execute(_FORGET).rowcount:
                pass

        self._attempt(write)

    def _attempt(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        """What an action gives within one transaction; None if the file cannot be used."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=5)) as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, content BLOB, day INTEGER)")
                return action(database)
        except sqlite3.OperationalError:  # locked for long, read-only, or on a full disk
            return None
        except sqlite3.DatabaseError:  # damaged
            self.path.unlink(missing_ok=True)
            return None
        except OSError:
            return None


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file's content; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()


def _found(database: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Entry]]:
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        marks = ",".join("?" * len(some))
        rows = database.execute(f"SELECT key, content, day FROM entries WHERE key IN ({marks})", some).fetchall()
        unused = [(_today(), key) for key, _, day in rows if day != _today()]
        if unused:  # a transaction that only reads waits for nobody
            database.executemany("UPDATE entries SET day = ? WHERE key = ?", unused)
        for key, content, _ in rows:
            entry = _unpacked(content)
            if entry is not None:
                yield key, entry


def _size(database: sqlite3.Connection) -> int:
    """Bytes in use."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _today() -> int:
    return int(time.time()) // (24 * 3600)


def _packed(features: Tensor, image: NDArray[np.uint8]) -> bytes:
    content = save({"features": features.contiguous().clone(), "image": torch.from_numpy(np.ascontiguousarray(image))})
    return zlib.crc32(content).to_bytes(4, "little") + content


def _unpacked(content: bytes) -> Entry | None:
    """The entry; None if its bytes are not those that were written."""
    if zlib.crc32(content[4:]) != int.from_bytes(content[:4], "little"):
        return None
    try:
        tensors = load(content[4:])
        return tensors["features"], tensors["image"].numpy()
    except (SafetensorError, LookupError):
        return None
