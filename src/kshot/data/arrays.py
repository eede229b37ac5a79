"""Arrays of any kind in the one form that splits hold: (M, H, W, C), uint8 or float32, ordered by split and class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kshot.data.classes import PARTS, ClassInfo, Part, listed
from kshot.errors import ConfigError, DataError, check_choice

ArrayKind = Literal["images", "vectors", "series"]
Pixels = NDArray[np.uint8] | NDArray[np.float32]

BLOCK_BYTES = 1 << 22  # how much of an array is held in memory while it is read through

_SHAPES: dict[ArrayKind, dict[int, str]] = {
    "images": {3: "(M, H, W)", 4: "(M, H, W, C)"},
    "vectors": {2: "(M, D)"},
    "series": {2: "(M, T)", 3: "(M, C, T)"},
}


def stored_form(values: ArrayLike, kind: ArrayKind) -> Pixels:
    """Bring images, feature vectors or series into the form of a split's images.

    Parameters
    ----------
    values
        Images (M, H, W) or (M, H, W, C), vectors (M, D), or series (M, T) or (M, C, T).
    kind
        Which of them they are.

    Returns
    -------
    ndarray
        (M, H, W, C): a vector is one pixel of D channels, a series one row of T pixels with C channels. Bytes (uint8)
        stay bytes; all other numbers become float32, so that no value is rounded to one of 256 levels.

    Raises
    ------
    DataError
        If the shape does not fit the kind, or values are no finite numbers.
    """
    check_choice("kind", kind, get_args(ArrayKind))
    array = np.asarray(values)
    if array.ndim not in _SHAPES[kind] or array.size == 0:
        shapes = {other: " or ".join(by_rank.values()) for other, by_rank in _SHAPES.items()}
        others = "; ".join(f"{other} {shape}" for other, shape in shapes.items() if other != kind)
        raise DataError(
            f"{kind} are an array {shapes[kind]} with M of at least 1, not {array.shape}; kind=... says what the array "
            f"holds: {others}"
        )
    if array.dtype != np.uint8:
        array = _as_float32(array)
    if kind == "vectors":
        return array[:, None, None, :]
    if kind == "series":
        return np.moveaxis(array.reshape(len(array), -1, array.shape[-1]), 1, 2)[:, None]
    return array.reshape(*array.shape[:3], -1)


def _as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "biuf":
        raise DataError(f"the array holds {array.dtype}, but must hold real numbers")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    finite = np.isfinite(numbers.reshape(len(numbers), -1)).all(1)
    if not finite.all():
        raise DataError(
            f"{int((~finite).sum())} of {len(numbers)} rows of the array hold values that are not finite in float32, "
            f"the first is row {int(np.argmin(finite))}; replace them, or leave these rows out"
        )
    return numbers


def class_names_of(
    labels: ArrayLike, rows: int, class_names: Sequence[str] | None
) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the classes, and the position of each row's class among them.

    Parameters
    ----------
    labels
        (M,) integers or names.
    rows
        M, how many rows have to have a label.
    class_names
        The name of class 0, 1, ...; None to call each class what its label is, in sorted order.

    Raises
    ------
    DataError
        If there is not one label per row, or a label has no name.
    """
    given = np.asarray(labels)
    if given.shape != (rows,) or given.dtype.kind not in "iuUS":
        raise DataError(
            f"labels must be {rows} whole numbers or names, one per row of the array, not {given.dtype} {given.shape}"
        )
    if class_names is None:
        found, positions = np.unique(given, return_inverse=True)
        return [_text(label) for label in found.tolist()], positions.reshape(-1).astype(np.int64)
    names = [str(name) for name in class_names]
    if given.dtype.kind in "US":
        raise DataError("class_names name the labels 0, 1, ..., but the labels are names; leave out class_names")
    if given.min() < 0 or given.max() >= len(names):
        raise DataError(
            f"labels go from {given.min()} to {given.max()}, but {len(names)} class_names name the labels 0 to "
            f"{len(names) - 1}; give a name for every label"
        )
    return names, given.astype(np.int64)


def splits_of(names: Sequence[str], splits: Mapping[Part, Sequence[str | int]]) -> dict[str, Part]:
    """The split of each class, from the lists of classes per split.

    Raises
    ------
    ConfigError
        If a split is unknown.
    DataError
        If a list names an unknown class, or a class is in no list or in two of them.
    """
    unknown = sorted(set(splits) - set(PARTS))
    if unknown:
        raise ConfigError(f"splits has {listed(unknown)}; its keys are {', '.join(PARTS)}")
    home: dict[str, Part] = {}
    for part, members in splits.items():
        for member in map(str, members):
            if member not in names:
                raise DataError(f"splits[{part!r}] names {member!r}, which is no class; the classes: {listed(names)}")
            if member in home:
                raise DataError(
                    f"splits has class {member!r} in {home[member]} and in {part}; each class has one split"
                )
            home[member] = part
    missing = [name for name in names if name not in home]
    if missing:
        raise DataError(f"splits leaves out {len(missing)} classes: {listed(missing)}; put each into one of the splits")
    return home


def in_order(images: Pixels, positions: NDArray[np.int64], order: Sequence[int]) -> Pixels:
    """The rows ordered by their classes: first those of class ``order[0]``, then those of ``order[1]``, and so on."""
    rank = np.argsort(np.asarray(order, np.int64))
    rows = np.argsort(rank[positions], kind="stable")
    return cast(Pixels, np.ascontiguousarray(images[rows]))


def training_rows(images: Pixels, classes: Sequence[ClassInfo]) -> Pixels:
    """The images of the training classes, which come first."""
    return images[: sum(info.count for info in classes if info.split == "train")]


def channel_moments(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels of images (M, H, W, C).

    Bytes are taken on the scale 0..1, floating-point values as they are. A channel of one value alone has the smallest
    deviation that keeps the division defined: one of 255 levels, or 1 for floating-point values. Memory stays bounded.
    """
    moments = _moments_of_bytes(images) if images.dtype == np.uint8 else _moments_of_floats(images)
    mean, std = (tuple(part.tolist()) for part in moments)
    return mean, std


def _moments_of_bytes(images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    channels = images.shape[-1]
    histogram = np.zeros((channels, 256))
    for block in _blocks(images):
        histogram += [np.bincount(block[..., channel].reshape(-1), minlength=256) for channel in range(channels)]
    frequency = histogram / histogram.sum(1, keepdims=True)
    values = np.arange(256) / 255
    mean = frequency @ values
    std = np.maximum(np.sqrt((frequency * (values - mean[:, None]) ** 2).sum(1)), 1 / 255)
    return mean.round(6), std.round(6)


def _moments_of_floats(images: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count, axes = images[..., 0].size, (0, 1, 2)
    mean = sum(block.sum(axes, dtype=np.float64) for block in _blocks(images)) / count
    variance = sum(np.square(block - mean).sum(axes) for block in _blocks(images)) / count
    std = np.sqrt(variance)
    # deviations that are nothing but rounding would blow a constant channel up
    return mean, np.where(std > 1e-6 * np.abs(mean), std, 1.0)


def _blocks(images: NDArray[Any]) -> list[NDArray[Any]]:
    rows = max(1, BLOCK_BYTES // images[0].nbytes)
    return [images[first : first + rows] for first in range(0, len(images), rows)]


def _text(label: object) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
