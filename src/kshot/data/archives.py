"""Files from outside, read with suspicion: zips, tars and downloads."""

from __future__ import annotations

import lzma
import struct
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from tqdm import tqdm

from kshot import files
from kshot.errors import DataError
from kshot.files import open_regular

GET_IT_AGAIN = "the file is damaged or incomplete: get it again"

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    LookupError,
    MemoryError,
)
LARGEST_MEMBER = 1 << 26  # bytes of a member of a zip, which is read into memory


@contextmanager
def open_zip(path: Path) -> Iterator[Callable[[str], bytes]]:
    """A function that returns the bytes of a member of the zip; see `zip_members` for their names.

    Members are read into memory, up to 64 MiB each, and never written to a path that the archive chooses.
    """
    with _refusing_damage(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        _refuse_traversal(path, archive.namelist())

        def read(name: str) -> bytes:
            with archive.open(name) as member:  # which may hold more than the archive says
                content = member.read(LARGEST_MEMBER + 1)
            if len(content) > LARGEST_MEMBER:
                raise DataError(f"{name} in {path} has more than {LARGEST_MEMBER >> 20} MiB: {GET_IT_AGAIN}")
            return content

        yield read


def zip_members(path: Path) -> list[str]:
    """Names of the files in a zip; DataError if it is damaged, or a name leaves the archive's folder."""
    with _refusing_damage(path), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        _refuse_traversal(path, archive.namelist())
        return [name for name in archive.namelist() if not name.endswith("/")]


@contextmanager
def open_tar(path: Path, names: Sequence[str]) -> Iterator[Callable[[str], BinaryIO]]:
    """A function that opens a member of the tar (compressed or not) for reading; the members `names` must exist."""
    with _refusing_damage(path), open_regular(path) as file, tarfile.open(fileobj=file) as archive:
        members = archive.getnames()
        _refuse_traversal(path, members)
        for name in names:
            if name not in members or not archive.getmember(name).isfile():
                raise DataError(f"{path} does not hold {name}: {GET_IT_AGAIN}")

        def open_member(name: str) -> BinaryIO:
            member: Any = archive.extractfile(name)
            return member

        yield open_member


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except _DAMAGE as error:
        raise DataError(f"{path} cannot be read ({error}): {GET_IT_AGAIN}") from error


def _refuse_traversal(path: Path, names: Sequence[str]) -> None:
    for name in names:
        member = PureWindowsPath(name)  # it knows both kinds of slashes, and drives
        if member.anchor or ".." in member.parts:
            raise DataError(
                f"{path} holds {name!r}, which points outside of it; do not use it: get it from its publisher"
            )


def refuse_other_checksum(path: Path, md5: str) -> None:
    """DataError unless the file has this MD5."""
    found = files.checksum(path, "md5")
    if found != md5:
        raise DataError(
            f"{path} has the MD5 checksum {found}, and the publisher's file has {md5}: the file is damaged, incomplete "
            f"or of another version: delete it and get it again"
        )


def download(url: str, target: Path, *, md5: str) -> Path:
    """Fetch `url` to `target`, unless it is there; an interrupted download continues from the place where it stopped.

    The file has the name `target` only once its MD5 is right.

    Raises
    ------
    DataError
        If the MD5 is another one, or nothing answers.
    """
    if target.exists():
        refuse_other_checksum(target, md5)
        return target
    partial = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, partial)
    except (urllib.error.URLError, OSError) as error:
        raise DataError(
            f"downloading {url} failed ({error}); try again to continue, or fetch it by other means and pass --source"
        ) from error
    try:
        refuse_other_checksum(partial, md5)
    except DataError:
        partial.unlink()
        raise
    partial.replace(target)
    return target


def _fetch(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise
    with answer:
        continued = answer.status == 206
        length = int(answer.headers.get("Content-Length", 0)) + (have if continued else 0)
        with (
            open(partial, "ab" if continued else "wb") as file,
            tqdm(total=length, initial=have if continued else 0, desc=url, unit="B", unit_scale=True) as progress,
        ):
            for piece in iter(lambda: answer.read(1 << 18), b""):
                file.write(piece)
                progress.update(len(piece))
            if length and file.tell() < length:
                raise OSError(f"the connection ended after {file.tell()} of {length} bytes")
