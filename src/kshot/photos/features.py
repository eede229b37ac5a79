"""From photographs to features: decoded on all cores, and looked up if they were computed before."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from kshot.data.augmentation import normalize
from kshot.data.dataset import Normalization
from kshot.data.images import InputForm, ValueRange, read_each, shown_at, unreadable
from kshot.errors import DataError
from kshot.photos.cache import Entry, FeatureCache, file_digest
from kshot.photos.network import PhotoNetwork

T = TypeVar("T")
R = TypeVar("R")

_PIXELS_AT_ONCE = 16 * 224 * 224
_SMALL = 128  # pixels; thumbnails are halved if their side is at least this afterwards, or nearly
_READING = 2  # raised when image files are read in another way, so that what was remembered of them is forgotten


class PhotoFeatures(NamedTuple):
    """What is known of M photographs.

    Attributes
    ----------
    features
        (M, D).
    thumbnails
        The photographs as the network saw them, at half the size if it is large, (M, H, W, C) uint8.
    places
        Where each is in the list that was given, (M,), in which broken files may have been skipped.
    broken
        One line per file that was skipped: its name, and why.
    """

    features: Tensor
    thumbnails: NDArray[np.uint8]
    places: list[int]
    broken: list[str]


def photo_features(
    network: PhotoNetwork,
    images: Sequence[Any],
    *,
    value_range: ValueRange | None = None,
    skip_broken: bool = False,
    cache: FeatureCache | None = None,
    progress: bool = False,
) -> PhotoFeatures:
    """Features and thumbnails of photographs.

    Parameters
    ----------
    network
        Makes the features.
    images
        Image files, or images: of Pillow, or arrays (H, W) or (H, W, C) uint8.
    value_range
        The values that become black and white in images of more than 8 bits; None for those of each image alone.
    skip_broken
        Leave out files that cannot be read.
    cache
        Where features of files are looked up, by their content, and kept; None for nowhere. A network takes part if it
        has a `key`, which changes with its weights.
    progress
        Show a bar on the terminal.

    Raises
    ------
    DataError
        If a file cannot be read and is not to be skipped, or none is left.
    """
    keys = _keys(network, images, value_range) if cache is not None else len(images) * [None]
    known = cache.find([key for key in keys if key is not None]) if cache is not None else {}
    entries: list[Entry | None] = [known.get(key) if key is not None else None for key in keys]
    missing = [place for place, entry in enumerate(entries) if entry is None]
    broken: list[str] = []
    at_once = max(1, min(256, _PIXELS_AT_ONCE // network.form.image_size**2))
    batches = [missing[start : start + at_once] for start in range(0, len(missing), at_once)]
    read = partial(_pixels, form=network.form, value_range=value_range)
    bar = tqdm(total=len(images), unit="photo", desc="photographs", disable=not progress, delay=2)
    with bar, ThreadPoolExecutor(1) as reader:  # reads the next photographs while the network sees these
        bar.update(len(images) - len(missing))
        for some, pixels in zip(batches, _ahead(reader, read, [[images[place] for place in some] for some in batches])):
            made, failures = _computed(network, pixels)
            if failures and not skip_broken:
                raise unreadable(failures)
            broken += failures
            fresh: dict[str, Entry] = {}
            for place, entry in zip(some, made):
                entries[place] = entry
                if entry is not None and keys[place] is not None:
                    fresh[keys[place]] = entry  # type: ignore[index]
            if cache is not None and fresh:
                cache.keep(fresh)
            bar.update(len(some))
    places = [place for place, entry in enumerate(entries) if entry is not None]
    if not places:
        raise unreadable(broken) if broken else DataError("there are no photographs; give at least one")
    whole = [entry for entry in entries if entry is not None]
    return PhotoFeatures(
        torch.stack([features for features, _ in whole]), np.stack([image for _, image in whole]), places, broken
    )


def _ahead(pool: ThreadPoolExecutor, function: Callable[[T], R], arguments: Sequence[T]) -> Iterator[R]:
    """What `function` returns for each argument, computed while the caller still works on the one before."""
    coming: deque[Future[R]] = deque()
    for argument in arguments:
        coming.append(pool.submit(function, argument))
        if len(coming) > 1:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


@torch.no_grad()
def _computed(network: PhotoNetwork, pixels: Sequence[NDArray[np.uint8] | str]) -> tuple[list[Entry | None], list[str]]:
    """Features and thumbnail of each image, None for a file that cannot be read, and one line for each of those."""
    form = network.form
    readable = [image for image in pixels if not isinstance(image, str)]
    failures = [line for line in pixels if isinstance(line, str)]
    if not readable:
        return [None for _ in pixels], failures
    stack = np.stack(readable)
    features = iter(network(normalize(torch.from_numpy(stack), Normalization(form.mean, form.std))))
    thumbnails = iter(_thumbnails(stack))
    return [None if isinstance(image, str) else (next(features), next(thumbnails)) for image in pixels], failures


def _pixels(images: Sequence[Any], form: InputForm, value_range: ValueRange | None) -> list[NDArray[np.uint8] | str]:
    """Each image as the network takes it, or a line that says why it cannot be read."""
    if isinstance(images[0], (str, Path)):
        return read_each([Path(str(path)) for path in images], form, value_range=value_range)
    opened = [image if isinstance(image, Image.Image) else Image.fromarray(np.squeeze(image)) for image in images]
    return [
        shown_at(
            image,
            form.image_size,
            channels=len(form.mean),
            value_range=value_range,
            resize=form.resize,
            interpolation=form.interpolation,
        )
        for image in opened
    ]


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels of large images (M, H, W, C); small ones as they are."""
    height, width = images.shape[1:3]
    if min(height, width) < 2 * _SMALL * 7 // 8:
        return images
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    rows = np.add(even[:, ::2], even[:, 1::2], dtype=np.uint16)
    halved: NDArray[np.uint8] = ((rows[:, :, ::2] + rows[:, :, 1::2] + 2) >> 2).astype(np.uint8)
    return halved


def _keys(network: PhotoNetwork, images: Sequence[Any], value_range: ValueRange | None) -> list[str | None]:
    """What names the features of each file; None for what is no file, and for a network that cannot be named."""
    network_key = getattr(network, "key", None)
    if network_key is None or not len(images) or not isinstance(images[0], (str, Path)):
        return [None for _ in images]
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter's lock
        digests = list(pool.map(lambda path: file_digest(Path(path)), images))
    form = f"{_READING} {network_key} {network.form} {value_range}"
    return [None if digest is None else hashlib.sha256(f"{form} {digest}".encode()).hexdigest() for digest in digests]
