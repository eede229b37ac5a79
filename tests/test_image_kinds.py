"""Image files as people have them: each gives the pixels that a reference made by hand has, or a sentence."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from kshot.data import opening
from kshot.data.images import decode, read_images, try_images
from kshot.errors import DataError

SIZE = 32
# a picture without any symmetry: red grows to the right, green downwards, and one corner is blue
RAMP = np.linspace(0, 255, SIZE).astype(np.uint8)
PICTURE = np.stack([np.tile(RAMP, (SIZE, 1)), np.tile(RAMP[:, None], (1, SIZE)), np.zeros((SIZE, SIZE), np.uint8)], 2)
PICTURE[:8, :8] = (0, 0, 255)
GREY = np.tile(RAMP, (SIZE, 1))


def encoded(image, kind, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def check(content, expected, *, within=0):
    """The pixels that kshot sees against the reference."""
    seen = decode(content, SIZE)
    assert seen.shape == (SIZE, SIZE, 3)
    assert np.abs(seen.astype(int) - np.asarray(expected, int)).max() <= within


# what a camera means by its orientation: how the stored array comes from the upright one
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", sorted(STORED))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PICTURE)))
    check(encoded(stored, kind, exif=exif, **options), PICTURE, within=6 if kind == "JPEG" else 0)


def test_orientation_of_a_large_photograph_that_is_decoded_at_a_lower_resolution():
    exif = Image.Exif()
    exif[0x0112] = 6
    large = Image.fromarray(PICTURE).resize((1024, 1024), Image.Resampling.NEAREST)
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(large), 1)))
    seen = decode(encoded(stored, "JPEG", exif=exif, quality=95), SIZE)
    assert np.abs(seen.astype(int) - PICTURE).mean() < 1.5, "edges are blended, and nothing else"


def test_transparency():
    alpha = np.tile(RAMP[::-1], (SIZE, 1))
    layered = np.dstack([PICTURE, alpha])
    share = alpha[:, :, None] / 255
    on_white = np.round(PICTURE * share + 255 * (1 - share))
    check(encoded(Image.fromarray(layered), "PNG"), on_white, within=1)
    check(encoded(Image.fromarray(layered), "WEBP", lossless=True, exact=True), on_white, within=1)
    check(encoded(Image.fromarray(layered), "TIFF"), on_white, within=1)
    grey = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha)))
    expected = np.round(GREY * (alpha / 255) + 255 * (1 - alpha / 255))
    check(encoded(grey, "PNG"), np.repeat(expected[:, :, None], 3, 2), within=1)


def test_palettes():
    colours = np.asarray([[200, 30, 40], [10, 220, 60], [90, 80, 250]], np.uint8)
    numbers = np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(np.uint8) // 8 % 3
    image = Image.frombytes("P", (SIZE, SIZE), numbers.tobytes())
    image.putpalette(colours.flatten().tolist())
    check(encoded(image, "PNG"), colours[numbers])
    check(encoded(image, "BMP"), colours[numbers])
    see_through = np.where((numbers == 1)[:, :, None], 255, colours[numbers])
    check(encoded(image, "PNG", transparency=1), see_through)
    check(encoded(image, "GIF", transparency=1), see_through)
    half = colours[numbers].astype(float)
    half[numbers == 2] = (half[numbers == 2] * 128 + 255 * 127) / 255
    check(encoded(image, "PNG", transparency=bytes([255, 255, 128])), np.round(half), within=1)
    key = Image.fromarray(PICTURE)
    white = np.where((PICTURE == (0, 0, 255)).all(2)[:, :, None], 255, PICTURE)
    check(encoded(key, "PNG", transparency=(0, 0, 255)), white)


def test_printers_colours():
    """CMYK as Adobe writes it, inverted in JPEG, and upright in TIFF: (1 - C)(1 - K)."""
    cmyk = np.dstack([255 - PICTURE, np.full((SIZE, SIZE), 51, np.uint8)])
    image = Image.frombytes("CMYK", (SIZE, SIZE), cmyk.tobytes())
    expected = np.round(PICTURE * (1 - 51 / 255))
    check(encoded(image, "TIFF"), expected, within=2)
    check(encoded(image, "JPEG", quality=100, subsampling=0), expected, within=10)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(kind):
    deep = (GREY.astype(np.uint16) * 257).astype(np.uint16)
    check(encoded(Image.fromarray(deep), kind), np.repeat(GREY[:, :, None], 3, 2), within=1)


def png_of_sixteen_bit_colours(pixels: np.ndarray) -> bytes:
    """What cameras' converters write and Pillow cannot: big-endian RGB of two bytes."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    whole = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + whole


def test_sixteen_bits_per_colour():
    check(png_of_sixteen_bit_colours(PICTURE.astype(np.uint16) * 257), PICTURE, within=1)


def test_floating_point():
    check(encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), np.repeat(GREY[:, :, None], 3, 2), within=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_one_bit(kind):
    bits = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE)) // 5 % 2 == 0
    expected = np.repeat(np.where(bits, 255, 0)[:, :, None], 3, 2)
    check(encoded(Image.fromarray(bits), kind), expected)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_what_moves(kind):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "MPO" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    check(content, np.full((SIZE, SIZE, 3), (255, 0, 0)), within=2)


def test_progressive_jpeg():
    check(encoded(Image.fromarray(PICTURE), "JPEG", quality=100, subsampling=0, progressive=True), PICTURE, within=6)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_named_and_not_filled_with_grey(tmp_path, progressive):
    whole = encoded(Image.fromarray(PICTURE).resize((640, 640)), "JPEG", progressive=progressive)
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "whole.jpg").write_bytes(whole)
    images, failures = try_images([tmp_path / "cut.jpg", tmp_path / "whole.jpg"], SIZE)
    assert len(images) == 1
    assert len(failures) == 1
    assert failures[0].startswith(f"{tmp_path / 'cut.jpg'}: ")
    assert "truncated" in failures[0]


def test_content_counts_and_not_the_ending(tmp_path):
    for name, kind in (("a.jpg", "PNG"), ("b.PNG", "GIF"), ("c.gif", "WEBP"), ("d.webp", "TIFF"), ("e", "PNG")):
        image = Image.new("RGB", (SIZE, SIZE), (255, 0, 0))
        (tmp_path / name).write_bytes(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
        assert (read_images([tmp_path / name], SIZE)[0] == (255, 0, 0)).all(), name
    for name, content in (
        ("page.jpg", b"<html>not found</html>"),
        ("none.png", b""),
        ("film.jpg", b"\0\0\0\x18ftypqt  "),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: it is (no image in a format that kshot reads|empty)"):
            read_images([tmp_path / name], SIZE)


@pytest.mark.parametrize(
    "name", ["Фото.jpg", "写真 1.jpg", "صورة.jpg", "a'b\"c;&.jpg", "-rf.jpg", "e\u0301t\u00e9.jpg"]
)
def test_names_in_any_script(tmp_path, name):
    path = tmp_path / f"{name}.jpg"
    Image.fromarray(PICTURE).save(path, quality=100, subsampling=0)
    assert np.abs(read_images([path], SIZE)[0].astype(int) - PICTURE).max() <= 6


def fresh(monkeypatch):
    opening._formats.cache_clear()
    monkeypatch.setattr("PIL.Image.OPEN", dict(Image.OPEN))
    monkeypatch.setattr("PIL.Image.ID", list(Image.ID))


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic(orientation):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](PICTURE)))
    check(encoded(stored, "HEIF", exif=exif.tobytes(), quality=100, chroma=444), PICTURE, within=12)


def test_avif():
    if "AVIF" not in opening._formats():
        pytest.skip("this Pillow reads no AVIF")
    check(encoded(Image.fromarray(PICTURE), "AVIF", quality=100, subsampling="4:4:4"), PICTURE, within=8)


@pytest.mark.parametrize(
    ("brand", "kind", "advice"),
    [(b"heic", "HEIC", r"pip install 'kshot\[heic\]'"), (b"mif1", "HEIC", "heic"), (b"avif", "AVIF", "upgrade pillow")],
)
def test_a_plug_in_that_is_missing_is_named(tmp_path, monkeypatch, brand, kind, advice):
    fresh(monkeypatch)
    for name in ("HEIF", "AVIF"):
        Image.OPEN.pop(name, None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    try:
        with pytest.raises(DataError, match=rf"IMG_1\.HEIC: it is {kind}, which needs a plug-in: .*{advice}"):
            read_images([path], SIZE)
    finally:
        opening._formats.cache_clear()
