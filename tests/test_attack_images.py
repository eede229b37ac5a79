"""Image files that attack: other programs' formats, sizes that fill the memory, pipes; each refused in a sentence."""

from __future__ import annotations

import os
import resource
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kshot.data import opening
from kshot.data.folders import image_files
from kshot.data.images import decode, find_value_range, try_images
from kshot.data.opening import FORMATS, LARGEST, open_image
from kshot.errors import DataError


def blank_png(path: Path, width: int, height: int) -> Path:
    """A valid PNG of black pixels, a few kilobytes for any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    press = zlib.compressobj()
    rows = b"".join([*(press.compress(bytes(1 + 3 * width)) for _ in range(height)), press.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO", "JPEG2000"])
def test_formats_that_kshot_does_not_read_are_refused(tmp_path: Path, kind: str):
    path = tmp_path / "x.png"  # the content counts, and not the name
    Image.new("RGB", (16, 16)).save(path, kind)
    with pytest.raises(DataError, match=r"no image in a format that kshot reads: .*BMP, GIF.* JPEG"):
        decode(path, 8)


def test_folders_list_the_suffixes_of_these_formats_alone(tmp_path: Path):
    for name in ("a.jpg", "b.eps", "c.PNG", "d.wmf", "e.tiff", "f.h5"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["a.jpg", "c.PNG", "e.tiff"]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("AVIF", "HEIF")])
def test_every_format_is_opened(tmp_path: Path, kind: str):
    path = tmp_path / "x"
    frames = {"append_images": [Image.new("RGB", (16, 16), "red")], "save_all": True} if kind == "MPO" else {}
    Image.new("RGB", (16, 16), "red").save(path, kind, **frames)
    assert decode(path, 16)[8, 8, 0] > 250


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(15_000, 10_001), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int):
    content = blank_png(tmp_path / "x.png", 1, 1).read_bytes()
    header = struct.pack(">II", width, height) + content[24:29]
    path = tmp_path / "large.png"
    path.write_bytes(content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:])
    assert width * height > LARGEST
    with pytest.raises(DataError, match=r"pixels, and 150 million are the most that are decoded"):
        decode(path, 8)


def test_large_images_are_decoded_one_at_a_time_and_reduced(tmp_path: Path):
    path = blank_png(tmp_path / "x.png", 5000, 5000)  # 95 MiB when it is decoded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda image: decode(image, 32), [path] * 4))) == 4
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 150  # MiB


@pytest.mark.parametrize("kind", ["png", "gif", "tif", "16 bits", "with transparency"])
def test_a_reduced_image_shows_the_same(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    coarse = np.random.default_rng(0).integers(0, 256, (42, 42, 3), np.uint8)
    image = Image.fromarray(coarse).resize((420, 420), Image.Resampling.NEAREST)
    upright, turned = Image.Exif(), Image.Exif()
    turned[0x0112] = 6
    if kind == "16 bits":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif kind == "gif":
        image = image.quantize(64)
    elif kind == "with transparency":
        image.putalpha(Image.fromarray(coarse[..., 0]).resize(image.size, Image.Resampling.NEAREST))
    path = tmp_path / f"x.{kind if kind in ('gif', 'tif') else 'png'}"
    image.save(path, **({} if kind == "gif" else {"exif": turned if kind in ("png", "tif") else upright}))
    exact = decode(path, 42)
    monkeypatch.setattr(opening, "_ALONE", 100_000)
    with open_image(path, enough=(84, 84)) as reduced:
        assert reduced.size == (84, 84)
    assert np.abs(decode(path, 42).astype(int) - exact).mean() < 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.png")
    results: list[object] = []

    def attempt() -> None:
        results.extend([find_value_range([tmp_path / "x.png"]), *try_images([tmp_path / "x.png"], 8)])

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert results[:2] == [None, []]
    assert "no regular file" in str(results[2])
