"""How hostile files are made, by kind: images, archives, pickles, YAML, checkpoints, arrays, JSON."""

from __future__ import annotations

import io
import os
import pickle
import random
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Make = Callable[[Path, random.Random], object]


# Images -------------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *, rows: int | None = None, extra: bytes = b"") -> bytes:
    """A PNG of black pixels, with as many rows of content as the header says, or others."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    press = zlib.compressobj(9)
    count = height if rows is None else rows
    packed = b"".join([*(press.compress(bytes(1 + 3 * width)) for _ in range(count)), press.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return start + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def _saved(kind: str) -> Make:
    def make(path: Path, dice: random.Random) -> None:
        Image.new("RGB", (32, 32), "red").save(path, kind)

    return make


def _damaged(kind: str) -> Make:
    def make(path: Path, dice: random.Random) -> None:
        file = io.BytesIO()
        pixels = np.random.default_rng(dice.randrange(1000)).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(file, kind)
        content = bytearray(file.getvalue())
        for _ in range(dice.randint(1, 30)):
            content[dice.randrange(min(len(content), 400))] = dice.randrange(256)
        path.write_bytes(bytes(content)[: dice.randint(1, len(content)) if dice.random() < 0.3 else None])

    return make


def _bytes(content: bytes) -> Make:
    return lambda path, dice: path.write_bytes(content)


def _link(target: str) -> Make:
    return lambda path, dice: path.symlink_to(target)


def _socket(path: Path, dice: random.Random) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(before)


def _text_bomb() -> bytes:
    text = b"tEXt\0\0" + zlib.compress(bytes(1 << 26), 9)
    content = b"iTXt"
    return struct.pack(">I", len(text)) + content + text + struct.pack(">I", zlib.crc32(content + text))


IMAGES: dict[str, Make] = {
    **{f"a {kind} under another name": _saved(kind) for kind in ("EPS", "PDF", "TGA", "ICO", "JPEG2000", "SGI", "PCX")},
    **{f"a damaged {kind}": _damaged(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")},
    "169 million pixels": _bytes(png(13_000, 13_000, rows=1)),
    "64 million pixels": lambda path, dice: path.write_bytes(png(8_000, 8_000)),
    "a header of 4 billion pixels": _bytes(png(65_000, 65_000, rows=1)),
    "more rows than the header says": _bytes(png(64, 64, rows=100_000)),
    "64 MiB of text in a PNG": _bytes(png(8, 8, extra=_text_bomb())),
    "a GIF of 65535 x 65535": _bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(100)),
    "PostScript": _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch stolen) (w) file\n"),
    "SVG": _bytes(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
    "XML": _bytes(b'<!DOCTYPE a [<!ENTITY x SYSTEM "/etc/passwd">]><a>&x;</a>'),
    "nothing": _bytes(b""),
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to /dev/urandom": _link("/dev/urandom"),
    "a link to itself": _link("0.png"),
    "a link to nothing": _link("nothing"),
    "a link to /proc/self/mem": _link("/proc/self/mem"),
    "a pipe": lambda path, dice: os.mkfifo(path),
    "a socket": _socket,
    "a folder": lambda path, dice: path.mkdir(),
}


# Archives and pickles -----------------------------------------------------------------------------------------------


def _zip(members: Callable[[zipfile.ZipFile, random.Random], object]) -> Make:
    def make(path: Path, dice: random.Random) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            members(archive, dice)

    return make


def _drawing(name: str) -> str:
    return f"images_background/Alphabet/character01/{name}"


def _many(archive: zipfile.ZipFile, dice: random.Random) -> None:
    for number in range(20_000):
        archive.writestr(_drawing(f"{number}.png"), b"")


def _bombs(archive: zipfile.ZipFile, dice: random.Random) -> None:
    for number in range(20):
        archive.writestr(_drawing(f"{number:02}.png"), bytes(1 << 27))


def _damaged_zip(path: Path, dice: random.Random) -> None:
    _zip(lambda archive, _: [archive.writestr(_drawing(f"{number}.png"), png(105, 105)) for number in range(20)])(
        path, dice
    )
    content = bytearray(path.read_bytes())
    for _ in range(20):
        content[dice.randrange(len(content))] = dice.randrange(256)
    path.write_bytes(bytes(content))


ARCHIVES: dict[str, Make] = {
    "a zip of bombs": _zip(_bombs),
    "a zip of 20,000 members": _zip(_many),
    "a zip that leaves its folder": _zip(lambda archive, _: archive.writestr("../../stolen", b"x")),
    "a zip with an absolute name": _zip(lambda archive, _: archive.writestr("/tmp/stolen", b"x")),
    "a damaged zip": _damaged_zip,
    "no zip": _bytes(b"PK\x03\x04" + bytes(100)),
    "an empty zip": _bytes(b"PK\x05\x06" + bytes(18)),
    "a zip that is a pipe": lambda path, dice: os.mkfifo(path),
    "a zip that is /dev/zero": _link("/dev/zero"),
    "a zip that is a folder": lambda path, dice: path.mkdir(),
}


class _Call:
    """Pickled as a call of a function, with a state if there is one."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def _pickle(value: Any) -> Make:
    content = {"data": value, "fine_labels": [0] * 5, "coarse_labels": [0] * 5}
    return _bytes(pickle.dumps(content, 4))


def _array(shape: tuple[int, ...], dtype: object, content: bytes) -> _Call:
    """As numpy pickles an array."""
    reconstruct = np.zeros(1).__reduce__()[0]  # type: ignore[index]
    return _Call(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, content))


_LIAR = _Call(np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 63))
PICKLES: dict[str, Make] = {
    "a pickle that runs a command": _pickle(_Call(os.system, ("touch stolen",))),
    "a pickle that evaluates": _pickle(_Call(eval, ("open('stolen', 'w')",))),
    "a pickle of addresses": _pickle(_array((5,), np.dtype("O"), b"A" * 40)),
    "a pickle of a type that lies": _pickle(_array((5,), _LIAR, b"A" * 40)),
    "a pickle of objects": _pickle(np.asarray([{}, []] * 5, object)),
    "a pickle of a huge shape": _pickle(_array((2**62,), np.dtype("i8"), b"")),
    "a pickle of huge bytes": _pickle(_Call(bytes, (10**13,))),
    "a pickle with a huge number in its memo": _bytes(b"\x80\x02r\xff\xff\xff\x7f."),
    "a pickle of a huge length": _bytes(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little")),
    "a pickle that is deep": _bytes(b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."),
    "a pickle of texts": _pickle(["x"] * 5),
    "a pickle of nothing": _bytes(b""),
    "a pickle that is a pipe": lambda path, dice: os.mkfifo(path),
    "a pickle that is /dev/zero": _link("/dev/zero"),
}  # fmt: skip


# The files of a run -------------------------------------------------------------------------------------------------

_LEVELS = "".join(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 9)}]\n" for level in range(1, 30))
YAMLS: dict[str, Make] = {
    "YAML references": _bytes(f"x0: &x0 [1]\n{_LEVELS}".encode()),
    "YAML that merges references": _bytes(b"a: &a {x: 1}\nb: {<<: [" + b", ".join([b"*a"] * 1000) + b"]}\n"),
    "YAML that calls Python": _bytes(b"data: !!python/object/apply:os.system ['touch stolen']\n"),
    "YAML that is deep": _bytes(b"[" * 100_000),
    "YAML of 2 MB": _bytes(b"a: [" + b"1, " * 700_000 + b"]"),
    "YAML of odd keys": _bytes(b"? [1, 2]\n: 3\n? {a: 1}\n: .nan\n2001-01-01: !!binary aGFsbG8=\n"),
    "YAML of a huge number": _bytes(b"training: {seed: " + b"9" * 10_000 + b"}\n"),
    "YAML that is no text": _bytes(b"\xff\xfe\x00a: 1"),
    "YAML that is a pipe": lambda path, dice: os.mkfifo(path),
    "YAML that is /dev/zero": _link("/dev/zero"),
    "YAML that is a folder": lambda path, dice: path.mkdir(),
}


def _torch(value: Any) -> Make:
    def make(path: Path, dice: random.Random) -> None:
        torch.save({"format": 1, "config": {}, "learner": value}, path)

    return make


def _stored(name: str, size: int) -> Make:
    def make(path: Path, dice: random.Random) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"format": 1}))
            archive.writestr(name, bytes(size))

    return make


CHECKPOINTS: dict[str, Make] = {
    "a checkpoint that runs a command": _torch(_Call(os.system, ("touch stolen",))),
    "a checkpoint that is a plain pickle": _bytes(pickle.dumps(_Call(os.system, ("touch stolen",)))),
    "a checkpoint of huge tensors": _torch({"x": torch.zeros(1).expand(10**6, 10**6)}),
    "a checkpoint that unpacks to 2 GB": _stored("archive/data/0", 1 << 31),
    "a checkpoint without content": _stored("archive/nothing", 1),
    "a checkpoint of lists": _torch([[]] * 1000),
    "a checkpoint that is a pipe": lambda path, dice: os.mkfifo(path),
    "a checkpoint that is /dev/zero": _link("/dev/zero"),
}
_DEEP_HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + b"(" * 200 + b")" * 200 + b"}\n"
_HUGE_HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9999999999999, 16, 16, 1), }"
ARRAYS: dict[str, Make] = {
    "an array of objects": lambda path, dice: np.save(path, np.asarray([{}], object), allow_pickle=True),
    "an array that is huge": _bytes(b"\x93NUMPY\x01\x00\x76\x00" + _HUGE_HEADER.ljust(117) + b"\n"),
    "an array with a deep header": _bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(_DEEP_HEADER)) + _DEEP_HEADER),
    "an array that is a pipe": lambda path, dice: os.mkfifo(path),
    "an array that is /dev/zero": _link("/dev/zero"),
}  # fmt: skip
JSONS: dict[str, Make] = {
    "JSON that is deep": _bytes(b"[" * 100_000),
    "JSON of a huge number": _bytes(b'{"mean": ' + b"9" * 10_000 + b"}"),
    "JSON that is a pipe": lambda path, dice: os.mkfifo(path),
    "JSON that is /dev/zero": _link("/dev/zero"),
}
