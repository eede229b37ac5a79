"""Images of any mode as 8 bits per channel without transparency."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ValueRange = tuple[float, float]  # the values that become black and white

_PIXELS_AT_ONCE = 1 << 20  # of images of more than 8 bits


def is_deep(mode: str) -> bool:
    """Whether an image of this mode has more than 8 bits per channel, which Pillow's own conversion clips at 255."""
    return mode.startswith("I") or mode == "F"


def extremes(values: NDArray[np.generic]) -> ValueRange | None:
    """The lowest and the highest finite value; None if there is none."""
    found = [(band.min(), band.max()) for rows in _bands(values) if (band := rows[np.isfinite(rows)]).size]
    return (float(min(low for low, _ in found)), float(max(high for _, high in found))) if found else None


def _bands(values: NDArray[np.generic]) -> Iterator[NDArray[Any]]:
    """The rows of an image, some at a time: what is computed of all at once takes several times the image's memory."""
    at_once = max(1, _PIXELS_AT_ONCE // max(1, values.shape[1]))
    return (values[first : first + at_once] for first in range(0, len(values), at_once))


def plain(image: Image.Image, mode: str, *, value_range: ValueRange | None = None) -> Image.Image:
    """Eight bits per channel, no transparency, `mode` RGB or L."""
    if is_deep(image.mode):
        values = np.asarray(image)
        low, high = value_range or extremes(values) or (0.0, 0.0)
        image = Image.fromarray(np.concatenate([_levels(rows, low, high) for rows in _bands(values)]))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        # Dropping the alpha channel of an opaque image changes no colour.
    return image.convert(mode)


def _levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values mapped linearly, `low` to 0 and `high` to 255, and clipped."""
    levels = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / (max(high - low, 1e-12) / 255)
    return levels.clip(0, 255).round().astype(np.uint8)
