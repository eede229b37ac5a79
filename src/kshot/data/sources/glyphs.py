"""Glyphs: the characters of many scripts, drawn from the fonts that are shipped inside matplotlib; no download.

A class is a character, its domain the script. Every character is scaled to fill the same square, hence "o" and "O" are
one shape; a shape that occurs a second time is dropped, most strictly between the splits: no Cyrillic A is
tested on after training on a Latin A.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageFont
from tqdm import tqdm

from kshot import seeding
from kshot.data.classes import PARTS, ClassInfo, Part
from kshot.data.sources.base import Source
from kshot.data.writing import Batch, Contents

TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
)
# How the Unicode names of a script's characters begin.
SCRIPTS: dict[Part, tuple[str, ...]] = {
    "train": ("LATIN", "GREEK", "COPTIC", "ARABIC", "CANADIAN SYLLABICS"),
    "val": ("HEBREW", "TIFINAGH", "LAO", "NKO", "OGHAM"),
    "test": ("CYRILLIC", "ARMENIAN", "GEORGIAN"),
}
IMAGES_PER_CLASS = 20
IMAGE_SIDE = 28
BATCH = 16  # classes; small enough for the processor's cache
DRAWN_SIDE, INK_SIDE = 32, 26  # the square that a character is drawn in, and the longer side of its ink
FONT_SIZE = 64
SHAPE_SIDE = 16  # the square that its ink is stretched to for comparing characters
# Two characters look alike when their proportions differ by less than this factor, and the squared difference of their
# shapes is below this fraction of the squared ink of the heavier one.
ALIKE_PROPORTIONS = 1.3
ALIKE_WITHIN_SPLIT = 0.05
ALIKE_ACROSS_SPLITS = 0.15


@dataclass(frozen=True)
class Drawings:
    """All characters in one typeface; those that it lacks are empty.

    Parameters
    ----------
    pictures
        (characters, 32, 32) uint8, centred, proportions kept.
    shapes
        (characters, 16, 16) uint8, stretched.
    proportions
        (characters,) logarithm of width / height.
    """

    pictures: NDArray[np.uint8]
    shapes: NDArray[np.uint8]
    proportions: NDArray[np.float32]

    @property
    def present(self) -> NDArray[np.int64]:
        """Which characters the typeface has."""
        return np.flatnonzero(self.pictures.any((1, 2)))


class Glyphs(Source):
    """Characters in eight typefaces, or those of the eight that have the character, each with a random affine map."""

    name = "glyphs"
    description = "characters of 13 scripts drawn from fonts, 28x28 grey, unseen scripts for testing; no download"
    classes = "1483 / 129 / 232"
    obtain = "The fonts come with matplotlib."
    arguments = ""
    reads_files = False
    automatic = True

    def read(self, path: Path | None, root: Path) -> Contents:
        """Draw the characters; `path` is not used, since there are no files."""
        import matplotlib  # not above: every program that loads some dataset would wait for it

        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        found = _characters(fonts)
        characters = [character for character, _, _ in found]
        typefaces = tqdm(TYPEFACES, desc=f"draw {self.name}", unit=" typefaces", delay=2)
        drawings = [_draw(fonts / f"{typeface}.ttf", characters) for typeface in typefaces]
        kept = _distinct(drawings, np.asarray([PARTS.index(part) for _, _, part in found]))
        pictures = np.stack([drawn.pictures[kept] for drawn in drawings], 1)
        classes = [
            ClassInfo(unicodedata.name(character), script.lower(), split=part, count=IMAGES_PER_CLASS)
            for character, script, part in (found[i] for i in kept)
        ]
        return Contents(
            classes,
            (IMAGE_SIDE, IMAGE_SIDE, 1),
            batches=_batches([characters[i] for i in kept], pictures),
            origin=f"fonts of matplotlib {matplotlib.__version__}: {', '.join(TYPEFACES)}",
            augment="none",
        )


def _characters(fonts: Path) -> list[tuple[str, str, Part]]:
    """The letters that at least one typeface has: (character, script, split)."""
    codes = sorted(set().union(*(_known(fonts / f"{name}.ttf") for name in TYPEFACES)))
    letters = [chr(code) for code in codes if unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lo")]
    homes: list[tuple[str, Part]] = [(script, part) for part in PARTS for script in SCRIPTS[part]]
    return [
        (letter, script, part)
        for letter in letters
        for script, part in homes
        if unicodedata.name(letter, "").startswith(f"{script} ")
    ]


def _known(path: Path) -> Collection[int]:
    """The codes of the characters that a font has."""
    from matplotlib.ft2font import FT2Font  # see `Glyphs.read`

    return FT2Font(str(path)).get_charmap()


def _draw(path: Path, characters: list[str]) -> Drawings:
    """Draw every character that the font has, its ink filling the same square."""
    font = ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    known = _known(path)
    pictures = np.zeros((len(characters), DRAWN_SIDE, DRAWN_SIDE), np.uint8)
    shapes = np.zeros((len(characters), SHAPE_SIDE, SHAPE_SIDE), np.uint8)
    proportions = np.zeros(len(characters), np.float32)
    for index, character in enumerate(characters):
        if ord(character) not in known:
            continue
        mask = font.getmask(character, mode="L")
        ink = Image.frombytes("L", mask.size, bytes(mask))
        box = ink.getbbox()
        if box is None:
            continue
        width, height = box[2] - box[0], box[3] - box[1]
        scale = INK_SIDE / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (DRAWN_SIDE - size[0]) // 2, (DRAWN_SIDE - size[1]) // 2
        picture = ink.resize(size, Image.Resampling.BILINEAR, box)
        pictures[index, top : top + size[1], left : left + size[0]] = np.asarray(picture)
        shapes[index] = np.asarray(ink.resize((SHAPE_SIDE, SHAPE_SIDE), Image.Resampling.BILINEAR, box))
        proportions[index] = np.log(width / height)
    return Drawings(pictures, shapes, proportions)


def _distinct(drawings: list[Drawings], splits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the characters to keep: in the order train, val, test, those that look like none before them.

    One typeface in which two characters look alike is enough: many differ upright and not in italics.
    """
    limit = np.where(splits[:, None] == splits, ALIKE_WITHIN_SPLIT, ALIKE_ACROSS_SPLITS).astype(np.float32)
    alike = np.zeros(limit.shape, bool)
    for drawn in drawings:
        present = drawn.present
        pixels = drawn.shapes[present].reshape(len(present), SHAPE_SIDE**2).astype(np.float32)
        energy = (pixels**2).sum(1)
        difference = energy[:, None] + energy - 2 * pixels @ pixels.T
        similar = np.abs(drawn.proportions[present, None] - drawn.proportions[present]) < np.log(ALIKE_PROPORTIONS)
        here = np.ix_(present, present)
        alike[here] |= similar & (difference <= limit[here] * np.maximum(energy[:, None], energy))
    # A character looks like itself wherever it is drawn at all.
    drawable = alike.diagonal().copy()
    kept: list[int] = []
    for index in np.argsort(splits, kind="stable"):
        if drawable[index] and not alike[index, kept].any():
            kept.append(int(index))
    return np.asarray(kept)


def _batches(characters: list[str], pictures: NDArray[np.uint8]) -> Iterator[Batch]:
    """Image k of a class takes the (k mod n)-th of the n typefaces that have the character, and its own affine map.

    pictures: (characters, typefaces, 32, 32)
    """
    codes = np.asarray([ord(character) for character in characters])
    keys = seeding.bits(seeding.key("glyphs"), codes)
    for first in range(0, len(characters), BATCH):
        labels = np.arange(first, min(first + BATCH, len(characters)))
        faces = [np.flatnonzero(pictures[label].any((1, 2))) for label in labels]
        face = np.stack([np.resize(typefaces, IMAGES_PER_CLASS) for typefaces in faces])
        drawn = pictures[labels[:, None], face].reshape(-1, DRAWN_SIDE, DRAWN_SIDE)
        numbers = seeding.uniform(keys[labels, None], np.arange(IMAGES_PER_CLASS * 6))
        yield _warp(drawn, 2 * numbers.reshape(-1, 6) - 1), np.repeat(labels, IMAGES_PER_CLASS)


def _warp(drawn: NDArray[np.uint8], numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Rotate by up to 12 degrees, shear by 0.2, scale each axis to 15..21 pixels and shift by 3 pixels.

    drawn: (M, 32, 32); numbers: (M, 6) in -1..1; returns (M, 28, 28, 1), ink 255 on 0.
    """
    angle, shear = np.deg2rad(12) * numbers[:, 0], 0.2 * numbers[:, 1]
    scale = (18 + 3 * numbers[:, 2:4]) / IMAGE_SIDE * DRAWN_SIDE / INK_SIDE
    shift = 3 * numbers[:, 4:6] * 2 / IMAGE_SIDE
    cosine, sine = np.cos(angle), np.sin(angle)
    forward = np.stack([cosine, shear * cosine - sine, sine, shear * sine + cosine], -1).reshape(-1, 2, 2)
    backward = np.linalg.inv(forward * scale[:, None])
    theta = np.concatenate([backward, -backward @ shift[..., None]], -1)
    centres = (np.arange(IMAGE_SIDE) + 0.5) / IMAGE_SIDE * 2 - 1
    target = np.stack([*np.meshgrid(centres, centres), np.ones((IMAGE_SIDE, IMAGE_SIDE))]).reshape(3, -1)
    grid = torch.from_numpy((theta @ target).astype(np.float32)).unflatten(2, (IMAGE_SIDE, IMAGE_SIDE))
    pixels = torch.from_numpy(drawn)[:, None].float()
    images = F.grid_sample(pixels, grid.permute(0, 2, 3, 1), align_corners=False)
    return images.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
