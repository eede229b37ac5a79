"""Pictures of any format and size, as the uint8 arrays that everything else works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.errors import DataError

SHOWN_FAILURES = 10

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels from the image's upper left corner


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
    return _attempt_all(paths, [partial(decode, Path(path), size, channels) for path in paths])


def try_parts(
    paths: Sequence[Path], boxes: Sequence[Box | None], size: int
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The parts of images that can be read, as `decode_part` treats them, and one line for each that cannot."""
    return _attempt_all(paths, [partial(decode_part, path, size, box) for path, box in zip(paths, boxes)])


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


def decode_part(path: Path, size: int, box: Box | None = None) -> NDArray[np.uint8]:
    """What an image shows within `box`, or all of it, stretched to a square: (size, size, 3) uint8.

    A box is cut at the image's border. It refers to the image as stored; without one, the image is turned as its camera
    says (EXIF).
    Raises ValueError for a box that lies outside, and whatever Pillow raises for a damaged image.
    """
    with Image.open(path) as image:
        if box is None:
            image.draft(None, (2 * size, 2 * size))
            return np.asarray(_stretched(ImageOps.exif_transpose(image), size))
        width, height = image.size
        left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
        if left >= right or top >= bottom:
            raise ValueError(f"the box {box} shows nothing of its {width} x {height} pixels")
        image.draft(None, (int(2 * size * width / (right - left)), int(2 * size * height / (bottom - top))))
        across, down = image.width / width, image.height / height
        # cropped before it is resized, which would otherwise mix in what lies beside the box
        left, top = int(left * across), int(top * down)
        part = image.crop((left, top, max(round(right * across), left + 1), max(round(bottom * down), top + 1)))
        return np.asarray(_stretched(part, size))


def _stretched(image: Image.Image, size: int) -> Image.Image:
    return _plain(image, "RGB").resize((size, size), Image.Resampling.BILINEAR)


def _attempt_all(
    paths: Sequence[Path | str], readers: Sequence[Callable[[], NDArray[np.uint8]]]
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    # Threads, because decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(_attempt, paths, readers))
    arrays = [result for result in results if not isinstance(result, str)]
    return arrays, [result for result in results if isinstance(result, str)]


def _attempt(path: Path | str, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8] | str:
    try:
        return read()
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
