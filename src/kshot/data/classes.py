"""The classes of a dataset: their names, their domains, and the split that each of them belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kshot import seeding
from kshot.errors import ConfigError, DataError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
FRACTIONS = (0.64, 0.16, 0.2)

SHOWN = 10  # names that a message lists before it counts the others


@dataclass(frozen=True)
class ClassInfo:
    """One class of a dataset.

    Parameters
    ----------
    name
        The name of the class, which occurs once per dataset.
    domain
        What its dataset groups it under: an alphabet, a superclass, a script.
    split
        Where it belongs: "train", "val" or "test".
    count
        How many images it has.
    """

    name: str
    domain: str
    _: KW_ONLY
    split: Part
    count: int

    def as_json(self) -> dict[str, Any]:
        """The class as it stands in meta.json, whose format calls the domain a group."""
        return {"name": self.name, "group": self.domain, "split": self.split, "count": self.count}

    @classmethod
    def from_json(cls, info: Mapping[str, Any]) -> ClassInfo:
        """The class that `as_json` described."""
        return cls(info["name"], info["group"], split=info["split"], count=info["count"])


def by_split(classes: Iterable[ClassInfo]) -> list[ClassInfo]:
    """The classes in the order train, val, test; within a split the order stays."""
    return sorted(classes, key=lambda info: PARTS.index(info.split))


def first_rows(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """First row of each class (classes,), if the classes follow one another with these numbers of images."""
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


def refuse_overlap(dataset: str, classes: Sequence[ClassInfo]) -> None:
    """Check that the splits hold different classes, and enough of them for a task.

    Raises
    ------
    DataError
        If a class is in two splits, is listed twice or is empty, or if a split has fewer than two classes.
    """
    homes: dict[str, str] = {}
    for info in classes:
        if info.name in homes:
            raise DataError(
                f"{dataset}: class {info.name!r} is in {homes[info.name]} and in {info.split}; the splits of few-shot "
                f"data hold different classes, and a class has one entry: correct the lists or the folders"
            )
        homes[info.name] = info.split
        if info.count < 1:
            raise DataError(f"{dataset}: class {info.name!r} has no images; add some, or remove the class")
    for part in PARTS:
        if sum(info.split == part for info in classes) < 2:
            raise DataError(f"{dataset}: {part} has fewer than 2 classes, and a task needs at least 2 of them")


def check_fractions(fractions: Sequence[float]) -> None:
    """ConfigError unless `fractions` are three positive numbers that add up to 1."""
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(
            f"fractions are {fractions}, but must be three positive numbers with the sum 1: the shares of the classes "
            f"in train, val and test"
        )


def share_out(names: Sequence[str], *, val: float, test: float, seed: int, stream: str = "folder") -> dict[str, Part]:
    """Choose the split of each class by a seed.

    A class that is added later does not move the others from one order to another: each class has a random rank of its
    own, which depends on its name and the seed alone.

    Parameters
    ----------
    names
        Names of the classes.
    val, test
        Shares of the classes that validate and test; 0 for none, otherwise at least two classes each. The others train.
    seed
        Which classes go where.
    stream
        Keeps the choices of different callers with the same seed apart.

    Returns
    -------
    dict
        The split of each name.

    Raises
    ------
    DataError
        If fewer than two classes are left to train.
    """
    shuffled = sorted(names, key=lambda name: int(seeding.key(stream, seed, name)))
    validating, testing = (max(2, round(share * len(names))) if share else 0 for share in (val, test))
    if len(names) < validating + testing + 2:
        raise DataError(
            f"{len(names)} classes are too few: {validating} would validate, {testing} would test, and at least 2 must "
            f"be left to train; add classes, or choose other fractions"
        )
    home: dict[str, Part] = dict.fromkeys(shuffled, "train")
    home.update(dict.fromkeys(shuffled[:validating], "val"))
    home.update(dict.fromkeys(shuffled[validating : validating + testing], "test"))
    return home


def listed(names: Iterable[object], most: int = SHOWN) -> str:
    """The names with commas between them; of many, the first `most` and how many follow."""
    texts = [str(name) for name in names]
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")
