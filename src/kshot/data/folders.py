"""Folders of image files: what lies in them, and which of them are named after splits."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from kshot.data.classes import Part
from kshot.data.opening import image_suffixes
from kshot.errors import DataError

_SPLIT_WORDS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def named_split(folder: Path) -> Part | None:
    """The split that a folder is named after, as "Training", "val_set" and "TEST images" are; None for any other."""
    word = re.sub("[^a-z]", "", folder.name.lower())
    return _SPLIT_WORDS.get(re.sub("(set|data|images|split|s)$", "", word))


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed ({error.strerror}); name a folder that exists and that you may read"
        ) from error


def image_files(folder: Path) -> list[Path]:
    """All files below a folder with the suffix of an image format, sorted, without hidden ones."""
    return [path for path in visible(folder) if path.is_file() and path.suffix.lower() in image_suffixes()]


def visible(folder: Path) -> list[Path]:
    """Everything below a folder, sorted, without what is hidden; DataError for a link to a file that is gone."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    for path in found:
        if not path.exists():
            raise DataError(f"{path} is a link to a file that is gone; remove it, or put the file back")
    return found


def fingerprint(tree: Path) -> str:
    """Ten hexadecimal digits that change if a file of the tree is added, removed, renamed or written."""
    digest = hashlib.sha256(str(tree.resolve()).encode())
    for path in visible(tree):
        state = os.stat(path)
        digest.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:10]
