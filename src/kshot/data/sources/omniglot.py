"""Omniglot (Lake et al. 2015): 1,623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kshot import seeding
from kshot.data import archives
from kshot.data.classes import ClassInfo, Part
from kshot.data.images import decode
from kshot.data.sources.base import Source, packaged_splits
from kshot.data.writing import Batch, Contents
from kshot.errors import DataError

SIDE = 28
DRAWERS = 20
TURNS = 4
BACKGROUND, EVALUATION = "images_background", "images_evaluation"
CHARACTERS = {BACKGROUND: 964, EVALUATION: 659}
SEED = 0


class Omniglot(Source):
    """Characters at 28x28, ink 255 on 0, with their rotations by 90, 180 and 270 degrees as further classes.

    This is the split of Vinyals et al. (2016) in the form that later work shares: in the order of set and alphabet, the
    first 1,200 characters train, except for five alphabets that validate; the other 423 test. A domain is an alphabet.
    """

    name = "omniglot"
    description = "handwritten characters 28x28, rotations as classes, split of Vinyals et al. (2016)"
    classes = "4112 / 688 / 1692"
    archives_needed: ClassVar[tuple[str, ...]] = (BACKGROUND, EVALUATION)
    obtain = (
        f"Pass the folder that holds {BACKGROUND}.zip and {EVALUATION}.zip, "
        f"from https://github.com/brendenlake/omniglot (python/)."
    )

    def read(self, path: Path | None, root: Path) -> Contents:
        """List the zips; DataError if a character or a drawing is missing."""
        folder = self.required(path)
        zips = {part: self._zip(folder, part) for part in self.archives_needed}
        drawings = {part: _drawings(zips[part], part) for part in zips}
        characters = [character for part in zips for character in sorted(drawings[part])]
        home = self.split(characters)
        return Contents(
            [
                ClassInfo(_turned(character, turn), character.split("/")[0], split=home[character], count=DRAWERS)
                for character in characters
                for turn in range(TURNS)
            ],
            (SIDE, SIDE, 1),
            batches=_batches([(zips[part], drawings[part]) for part in zips]),
            origin=f"Omniglot, {', '.join(f'{part}.zip' for part in zips)}",
            augment="none",
        )

    def split(self, characters: list[str]) -> dict[str, Part]:
        """The split of each character "ALPHABET/characterNN"; its rotations go with it."""
        lists = packaged_splits("omniglot")
        home: dict[str, Part] = {}
        for character in characters:
            alphabet = character.split("/")[0]
            home[character] = "train"
            for part in ("val", "test"):
                if alphabet in lists[part] or character in lists[part]:
                    home[character] = part
        return home

    def _zip(self, folder: Path, part: str) -> Path:
        path = (folder.parent if folder.is_file() else folder) / f"{part}.zip"
        if not path.exists():
            raise DataError(f"{path} does not exist. {self.how_to_prepare()}")
        return path


class OmniglotLake(Omniglot):
    """Lake's split: the 30 background alphabets train and validate (25 and 5, by seed), the 20 evaluation ones test."""

    name = "omniglot-lake"
    description = "handwritten characters 28x28, rotations as classes, Lake's background/evaluation split"
    classes = "25 / 5 / 20 alphabets"

    def split(self, characters: list[str]) -> dict[str, Part]:
        """Background alphabets by seed into train and val; evaluation alphabets, the later ones in the list, test."""
        alphabets = [character.split("/")[0] for character in characters]
        background = alphabets[: CHARACTERS[BACKGROUND]]
        home = _by_alphabet(background, {"val": 5})
        return {character: home.get(alphabet, "test") for character, alphabet in zip(characters, alphabets)}


class OmniglotBackground(Omniglot):
    """The background set alone: 20 of its alphabets train, 5 validate, 5 test, by seed; not a published split."""

    name = "omniglot-background"
    description = "handwritten characters 28x28, rotations as classes, the 30 background alphabets alone"
    classes = "20 / 5 / 5 alphabets"
    archives_needed = (BACKGROUND,)
    obtain = f"Pass {BACKGROUND}.zip, from https://github.com/brendenlake/omniglot (python/)."

    def split(self, characters: list[str]) -> dict[str, Part]:
        """Alphabets by seed into train, val and test."""
        alphabets = [character.split("/")[0] for character in characters]
        home = _by_alphabet(alphabets, {"val": 5, "test": 5})
        return {character: home[alphabet] for character, alphabet in zip(characters, alphabets)}


def _by_alphabet(alphabets: list[str], held_out: dict[Part, int]) -> dict[str, Part]:
    shuffled = sorted(set(alphabets), key=lambda alphabet: int(seeding.key("omniglot", SEED, alphabet)))
    home: dict[str, Part] = dict.fromkeys(shuffled, "train")
    for part, count in held_out.items():
        home.update(dict.fromkeys(shuffled[:count], part))
        shuffled = shuffled[count:]
    return home


def _drawings(path: Path, part: str) -> dict[str, list[str]]:
    """The members of the zip by character: {"ALPHABET/characterNN": [20 names]}; the members' names are checked."""
    found: dict[str, list[str]] = {}
    for member in archives.zip_members(path):
        pieces = member.split("/")
        if len(pieces) == 4 and pieces[0] == part and pieces[3].endswith(".png") and not pieces[3].startswith("."):
            found.setdefault("/".join(pieces[1:3]), []).append(member)
    short = [character for character, members in found.items() if len(members) != DRAWERS]
    if short:
        raise DataError(
            f"{path}: {short[0]} has {len(found[short[0]])} drawings, not {DRAWERS}: {archives.GET_IT_AGAIN}"
        )
    if len(found) != CHARACTERS[part]:
        raise DataError(f"{path} has {len(found)} characters, not {CHARACTERS[part]}: {archives.GET_IT_AGAIN}")
    return {character: sorted(found[character]) for character in found}


def _turned(character: str, turn: int) -> str:
    return f"{character}/rot{90 * turn:03}"


def _batches(zips: list[tuple[Path, dict[str, list[str]]]]) -> Iterator[Batch]:
    label = 0
    for path, drawings in zips:
        with archives.open_zip(path) as read:
            for character in sorted(drawings):
                images = np.stack([_decoded(path, member, read(member)) for member in drawings[character]])
                turned = [np.rot90(images, turn, axes=(1, 2)) for turn in range(TURNS)]
                yield np.concatenate(turned), np.repeat(label + np.arange(TURNS), DRAWERS)
                label += TURNS


def _decoded(path: Path, member: str, content: bytes) -> NDArray[np.uint8]:
    try:
        return 255 - decode(content, SIDE, channels=1)
    except Exception as error:  # Pillow's decoders raise many kinds; all mean that the image is damaged
        raise DataError(f"{member} in {path} cannot be read ({error}): {archives.GET_IT_AGAIN}") from error
