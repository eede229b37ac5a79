"""Pictures of any format and size, as the uint8 arrays that everything else works on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.errors import DataError

SHOWN_FAILURES = 10


def read_images(paths: Sequence[Path | str], size: int = 84, channels: int = 3) -> NDArray[np.uint8]:
    """Images of any format, shape and mode as one array (M, size, size, channels) uint8.

    An image is turned as its camera says (EXIF), laid on white where it is transparent, resized so that its shorter
    side is `size`, and cropped at the centre. channels: 3 (red, green, blue) or 1 (grey).
    Raises DataError with the names of all files that cannot be read.
    """
    arrays, failures = try_images(paths, size, channels)
    if failures:
        raise unreadable(failures)
    return np.stack(arrays)


def try_images(paths: Sequence[Path | str], size: int, channels: int = 3) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The images that can be read, and one line for each that cannot."""
    # Threads, because decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda path: _attempt(Path(path), size, channels), paths))
    arrays = [result for result in results if not isinstance(result, str)]
    return arrays, [result for result in results if isinstance(result, str)]


def unreadable(failures: Sequence[str]) -> DataError:
    """The error for files that are no images; `failures` are lines that begin with a file's name."""
    more = len(failures) - SHOWN_FAILURES
    lines = [*failures[:SHOWN_FAILURES], *([f"and {more} more"] if more > 0 else [])]
    return DataError("cannot be read as images; repair, replace or remove them:\n  " + "\n  ".join(lines))


def decode(content: bytes | Path, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """One image, from a file or from its bytes, as `read_images` treats it: (size, size, channels) uint8.

    Raises whatever Pillow raises for a damaged image: the caller knows its name.
    """
    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
        image.draft(None, (2 * size, 2 * size))  # large JPEGs are decoded at a lower resolution
        upright = ImageOps.exif_transpose(image)
        plain = _plain(upright, "RGB" if channels == 3 else "L")
        if plain.size != (size, size):
            plain = ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR)
        return np.asarray(plain).reshape(size, size, channels)


def _attempt(path: Path, size: int, channels: int) -> NDArray[np.uint8] | str:
    try:
        return decode(path, size, channels)
    except Exception as error:  # Pillow's decoders raise many kinds; all mean that this file is no usable image
        return f"{path}: {error}"


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Eight bits a channel, no transparency, `mode` RGB or L."""
    if image.mode.startswith("I"):
        # Sixteen bits, which conversion would clip at 255 and not scale.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    elif image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        span = max(float(np.ptp(values)), 1e-12)
        image = Image.fromarray(((values - values.min()) / span * 255).round().astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        # Dropping the alpha channel of an opaque image changes no colour.
    return image.convert(mode)
