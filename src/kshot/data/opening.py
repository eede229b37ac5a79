"""Opening images: the only place where kshot hands a file to Pillow, in a few formats and in bounded memory."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from kshot.errors import DataError
from kshot.files import open_regular
from kshot.memory import return_freed_memory

# Raster formats whose memory is bounded by their pixels. Not among them: EPS, whose decoder starts Ghostscript, WMF,
# which asks the system to draw, and containers that hand their content to other programs.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_PLUG_INS = {
    ".heic": "pip install 'kshot[heic]'",
    ".heif": "pip install 'kshot[heic]'",
    ".hif": "pip install 'kshot[heic]'",
    ".avif": "pip install --upgrade pillow",
}
LARGEST = 150_000_000  # pixels; of up to 4 bytes each
_ALONE = 1 << 24  # pixels of an image above which only one is decoded at a time, and reduced at once
_one_at_a_time = threading.RLock()


@contextmanager
def open_image(content: bytes | Path, *, enough: tuple[int, int] | None = None) -> Iterator[Image.Image]:
    """An image of one of `FORMATS`, as it stands, without regard to EXIF.

    Memory is bounded, however many threads open images: of those with more than 16.8 million pixels that are left
    after JPEG's own reduction, one is open at a time, and it is reduced, by averaging squares of pixels, if `enough`
    permits.

    Parameters
    ----------
    content
        A file, or its bytes.
    enough
        Width and height that suffice: large images are decoded at a lower resolution, but not below this. None for all
        pixels.

    Raises
    ------
    DataError
        If it is in another format, has more than 150 million pixels, or is no regular file. The message does not name
        the file, which the caller knows. Damaged content raises what Pillow raises, and a missing file OSError.
    """
    with (
        BytesIO(content) if isinstance(content, bytes) else open_regular(content) as file,
        _identified(file) as image,
    ):
        if enough is not None:
            image.draft(None, enough)
        if image.width * image.height <= _ALONE:
            yield image
            return
        with _one_at_a_time:
            yield _decoded(image, enough)
            image.close()
            return_freed_memory()  # before the next large image takes some


def mode_and_size(path: Path) -> tuple[str, tuple[int, int]]:
    """Pillow's mode of an image, and its width and height in pixels; nothing is decoded. Errors as for `open_image`."""
    with open_regular(path) as file, _identified(file) as image:
        return image.mode, image.size


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of files in `FORMATS`, such as ".jpg", of plug-ins that are not installed as well."""
    _formats()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    return frozenset(known | set(_PLUG_INS))


@cache
def _formats() -> list[str]:
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF came with a later version of Pillow


@contextmanager
def _identified(file: BinaryIO) -> Iterator[Image.Image]:
    """The image in an open file, before any pixel is decoded, if it is of a known format and not too large."""
    try:
        image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        raise DataError(_unknown(file)) from None
    except Image.DecompressionBombError:
        raise DataError(_too_large("more than 178 million pixels")) from None
    with image:
        if image.width * image.height > LARGEST:
            raise DataError(_too_large(f"{image.width} x {image.height} pixels"))
        yield image


def _unknown(file: BinaryIO) -> str:
    """What to say of a file that Pillow does not know: which plug-in is missing, or that it is no image."""
    file.seek(0)
    start = file.read(12)
    heic = start[8:10] in (b"he", b"mi", b"ms") and "HEIF" not in _formats()
    avif = start[8:12] in (b"avif", b"avis") and "AVIF" not in _formats()
    if start[4:8] == b"ftyp" and (heic or avif):
        kind = "avif" if avif else "heic"
        return f"it is {kind.upper()}, which needs a plug-in: {_PLUG_INS[f'.{kind}']}"
    return f"it is no image in a format that kshot reads: {', '.join(_formats())}" if start else "it is empty"


def _too_large(size: str) -> str:
    return f"it has {size}, and {LARGEST // 10**6} million are the most that are decoded; make it smaller"


def _decoded(image: Image.Image, enough: tuple[int, int] | None) -> Image.Image:
    """The image at a fraction of its size, by the largest whole number that leaves at least `enough`."""
    image.load()
    if enough is None:
        return image
    factor = min(image.width // max(1, enough[0]), image.height // max(1, enough[1]))
    if factor < 2:
        return image
    if image.mode in ("P", "PA", "1") or image.mode.startswith("I;"):  # which cannot be averaged
        plain = {"PA": "RGBA", "1": "L", "P": "RGBA" if "transparency" in image.info else "RGB"}
        image = image.convert(plain.get(image.mode, "I"))
    reduced = image.reduce(factor)
    image.close()
    return reduced
