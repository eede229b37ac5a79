"""The folder of a cell as bytes, to travel between machines that share no disk."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from kshot.errors import DataError

# what says how far a training is: read before, and written after, the files that it speaks of, so that a copy that is
# made while they change never promises what it does not hold
_LAST = ("last.pt", "progress.json", "result.json")
_LEFT_OUT = (".lock", ".holder.json")


def pack(folder: Path) -> bytes:
    """All files of a folder but locks and temporary ones."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(_files(folder), key=lambda path: path.name not in _LAST):
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # replaced or removed in the meantime
                continue
            entry = tarfile.TarInfo(str(path.relative_to(folder)))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of `pack` into a folder, each in one go; DataError if damaged, or if a name leads out of it."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            _write_members(tar, folder)
    except tarfile.TarError as error:
        raise DataError(f"the copy of the cell for {folder} is damaged: {error}") from error


def _write_members(tar: tarfile.TarFile, folder: Path) -> None:
    members = [member for member in tar.getmembers() if member.isfile()]
    for member in sorted(members, key=lambda member: Path(member.name).name in _LAST):
        target = folder / member.name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{member.name} leads out of {folder}; the copy of the cell is damaged")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.unpacked")
        file = tar.extractfile(member)
        temporary.write_bytes(file.read() if file is not None else b"")
        os.replace(temporary, target)


def last_change(folder: Path) -> float:
    """When the training last wrote how far it is; 0 before the first time."""
    return max((path.stat().st_mtime for path in _files(folder) if path.name in _LAST), default=0.0)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in _LEFT_OUT and not path.name.endswith((".tmp", ".unpacked")):
            yield path
