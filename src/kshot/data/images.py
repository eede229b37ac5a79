"""Pictures of any format and size, as the uint8 arrays that everything else works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kshot.data.classes import SHOWN
from kshot.data.eight_bits import ValueRange, extremes, is_deep, plain
from kshot.data.opening import mode_and_size, open_image
from kshot.errors import ConfigError, DataError

T = TypeVar("T")
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels from the image's upper left corner
Interpolation = Literal["bilinear", "bicubic"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_BLACK = 16  # of 255; the 12 bits of a camera or a scanner that are read as 16 stay below it


@dataclass(frozen=True)
class InputForm:
    """What images a network takes: it goes with the weights, which recognise less in images of another form.

    Attributes
    ----------
    image_size
        Side of the square images in pixels.
    mean, std
        Of each channel, on the 0..1 scale; there are as many channels as means.
    resize
        What the shorter side of an image is resized to before the centre is cropped, in pixels; at least `image_size`.
    interpolation
        How it is resized.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int
    interpolation: Interpolation = "bilinear"

    @classmethod
    def from_pixels(cls, image_size: int) -> InputForm:
        """The form of TensorFlow's image models: (pixel - 127) / 128, seven eighths of the shorter side."""
        return cls(image_size, 3 * (127 / 255,), 3 * (128 / 255,), resize=image_size * 256 // 224)


def read_images(
    paths: Sequence[Path | str],
    size: int = 84,
    *,
    channels: int = 3,
    value_range: ValueRange | None = None,
    resize: int | None = None,
) -> NDArray[np.uint8]:
    """Read images of any format, shape and mode into one array.

    An image is turned as its camera says (EXIF), laid on white if it is transparent, resized so that its shorter side
    is `size`, and cropped at the centre. Images of more than 8 bits per channel (16 or 32 bits, floating point) are
    mapped linearly to 0..255, all of them alike.

    Parameters
    ----------
    paths
        The files.
    size
        Side of the images in pixels.
    channels
        3 (red, green, blue) or 1 (grey).
    value_range
        The values that become 0 and 255, for images of more than 8 bits; None for the lowest and the highest value in
        these files, see `find_value_range`.
    resize
        What the shorter side is resized to before the crop, in pixels; None for `size`, which crops the longer side
        alone.

    Returns
    -------
    ndarray
        (M, size, size, channels) uint8.

    Raises
    ------
    DataError
        If files cannot be read; it names all of them.
    """
    if value_range is None:
        value_range = find_value_range(paths)
    arrays, failures = try_images(paths, size, channels=channels, value_range=value_range, resize=resize)
    if failures:
        raise unreadable(failures)
    return np.stack(arrays)


def find_value_range(paths: Sequence[Path | str]) -> ValueRange | None:
    """The lowest and the highest finite value of all images of more than 8 bits; None if there are none of these.

    Files that cannot be read are left to the functions that read them for good.
    """
    ranges = [found for found in _map(_value_range_of, paths) if found is not None]
    if not ranges:
        return None
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def check_value_range(value_range: ValueRange | None) -> None:
    """ConfigError unless the range goes from a lower to a higher number."""
    if value_range is not None and not value_range[0] < value_range[1]:
        raise ConfigError(f"the value range goes from {value_range[0]} to {value_range[1]}; give the lower value first")


def try_images(
    paths: Sequence[Path | str],
    size: int,
    *,
    channels: int = 3,
    value_range: ValueRange | None = None,
    resize: int | None = None,
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The images that can be read, as `decode` treats them, and one line for each that cannot."""
    read = partial(decode, size=size, channels=channels, value_range=value_range, resize=resize)
    return _attempt_all(paths, [partial(read, Path(path)) for path in paths])


def read_each(
    paths: Sequence[Path], form: InputForm, *, value_range: ValueRange | None = None
) -> list[NDArray[np.uint8] | str]:
    """Each image in the form that a network takes, (H, W, C) uint8, or a line that says why it cannot be read."""
    read = partial(
        decode,
        size=form.image_size,
        channels=len(form.mean),
        value_range=value_range,
        resize=form.resize,
        interpolation=form.interpolation,
    )
    return _attempts(paths, [partial(read, path) for path in paths])


def try_parts(
    paths: Sequence[Path], boxes: Sequence[Box | None], *, size: int
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The parts of images that can be read, as `decode_part` treats them, and one line for each that cannot."""
    return _attempt_all(paths, [partial(decode_part, path, size, box=box) for path, box in zip(paths, boxes)])


def unreadable(failures: Sequence[str]) -> DataError:
    """The error for files that are no images; `failures` are lines that begin with a file's name."""
    more = len(failures) - SHOWN
    lines = [*failures[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return DataError("cannot be read as images; repair, replace or remove them:\n  " + "\n  ".join(lines))


def nearly_black(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """Whether each image has no pixel above 15 of 255: mostly values that were taken for a wider range (M,)."""
    return np.asarray([image.max() < _BLACK for image in images], bool)


def decode(
    content: bytes | Path,
    size: int,
    *,
    channels: int = 3,
    value_range: ValueRange | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> NDArray[np.uint8]:
    """One image, from a file or from its bytes, as `read_images` treats it: (size, size, channels) uint8.

    Raises what Pillow raises for a damaged image: the caller knows its name.

    Parameters
    ----------
    content
        A file, or its bytes.
    size
        Side of the image in pixels.
    channels
        3 (red, green, blue) or 1 (grey).
    value_range
        The values that become 0 and 255, for an image of more than 8 bits; None for those of this image alone.
    resize, interpolation
        As for `read_images`, and how it is resized.
    """
    within = size if resize is None else resize
    with open_image(content, enough=(2 * within, 2 * within)) as image:
        upright = ImageOps.exif_transpose(image)
        return shown_at(
            upright, size, channels=channels, value_range=value_range, resize=resize, interpolation=interpolation
        )


def shown_at(
    image: Image.Image,
    size: int,
    *,
    channels: int = 3,
    value_range: ValueRange | None = None,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
) -> NDArray[np.uint8]:
    """An open image as `decode` treats files, (size, size, channels) uint8; as it stands, without regard to EXIF."""
    shown = plain(image, "RGB" if channels == 3 else "L", value_range=value_range)
    if resize is not None and resize != size:
        # one resampling of the part that is left of an image whose shorter side were `resize`
        side = min(shown.size) * size / resize
        left, top = ((length - side) / 2 for length in shown.size)
        shown = shown.resize((size, size), _RESAMPLING[interpolation], (left, top, left + side, top + side))
    elif shown.size != (size, size):
        shown = ImageOps.fit(shown, (size, size), _RESAMPLING[interpolation])
    return np.asarray(shown).reshape(size, size, channels)


def decode_part(path: Path, size: int, *, box: Box | None = None) -> NDArray[np.uint8]:
    """What an image shows within `box`, or all of it, stretched to a square: (size, size, 3) uint8.

    A box is cut at the image's border. It refers to the image as stored; without one, the image is turned as its camera
    says (EXIF). Raises ValueError for a box that lies outside, and what Pillow raises for a damaged image.
    """
    if box is None:
        with open_image(path, enough=(2 * size, 2 * size)) as image:
            return np.asarray(_stretched(ImageOps.exif_transpose(image), size))
    _, (width, height) = mode_and_size(path)
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if left >= right or top >= bottom:
        raise ValueError(f"the box {box} shows nothing of its {width} x {height} pixels")
    enough = int(2 * size * width / (right - left)), int(2 * size * height / (bottom - top))
    with open_image(path, enough=enough) as image:
        across, down = image.width / width, image.height / height
        # cropped before it is resized, which would otherwise mix in what lies around the box
        left, top = int(left * across), int(top * down)
        part = image.crop((left, top, max(round(right * across), left + 1), max(round(bottom * down), top + 1)))
        return np.asarray(_stretched(part, size))


def _stretched(image: Image.Image, size: int) -> Image.Image:
    return plain(image, "RGB").resize((size, size), Image.Resampling.BILINEAR)


def _attempt_all(
    paths: Sequence[Path | str], readers: Sequence[Callable[[], NDArray[np.uint8]]]
) -> tuple[list[NDArray[np.uint8]], list[str]]:
    results = _attempts(paths, readers)
    arrays = [result for result in results if not isinstance(result, str)]
    return arrays, [result for result in results if isinstance(result, str)]


def _attempts(
    paths: Sequence[Path | str], readers: Sequence[Callable[[], NDArray[np.uint8]]]
) -> list[NDArray[np.uint8] | str]:
    return _map(lambda attempt: _attempt(*attempt), list(zip(paths, readers)))


def _map(function: Callable[..., T], arguments: Iterable[object]) -> list[T]:
    # Threads, because decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, arguments))


def _attempt(path: Path | str, read: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8] | str:
    try:
        return read()
    except Exception as error:  # Pillow's decoders raise many kinds; all mean that this file is no usable image
        return f"{path}: {error}"


def _value_range_of(path: Path | str) -> ValueRange | None:
    """Lowest and highest finite value of an image of more than 8 bits; None for any other file."""
    try:
        if not is_deep(mode_and_size(Path(path))[0]):
            return None
        with open_image(Path(path)) as image:
            return extremes(np.asarray(image))
    except Exception:  # see `_attempt`
        return None
