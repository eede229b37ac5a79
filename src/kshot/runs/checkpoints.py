"""Checkpoints that survive a kill, and that refuse to be loaded into something else."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import torch

import kshot
from kshot.errors import CheckpointError
from kshot.files import read_bytes, refusal, refused, write_atomically

FORMAT = 1
# what a damaged file makes zipfile, pickle and torch raise
_DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; CheckpointError if the disk refuses, which leaves the previous one untouched."""
    packed = io.BytesIO()  # torch's own writing to a file makes of a full disk an error that does not say so
    torch.save({"format": FORMAT, "kshot": kshot.__version__} | content, packed)

    def write(file: BinaryIO) -> None:
        file.write(packed.getbuffer())

    try:
        write_atomically(path, write)
    except OSError as error:
        kept = "the previous one is untouched" if path.exists() else "there was none before"
        raise CheckpointError(
            f"the checkpoint {path} could not be written, and {kept}: {refusal(error)}, and resume the run"
        ) from error


def reading(path: Path) -> AbstractContextManager[None]:
    """Within this context, a checkpoint that is missing or cannot be read is a CheckpointError."""
    missing = f"there is no checkpoint {path}: train the run first, or check the folder's name"
    return refused(CheckpointError, missing=missing, unreadable=f"the checkpoint {path} cannot be read")


def load(path: Path, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint, whose content is checked against its checksums, without running any code from it.

    Parameters
    ----------
    path
        The file that `save` wrote.
    config
        What the learner and the backbone that will receive it are built from; None to accept any.

    Returns
    -------
    dict
        What was saved, and in "digest" what identifies this very content.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another format, or of another learner or backbone.
    """
    with reading(path):
        content = read_bytes(path)
    try:
        _check_sums(content)
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        version = found["format"]
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} is damaged or was not written by kshot ({type(error).__name__}); {way_out(path)}"
        ) from error
    if version != FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, written by kshot {found.get('kshot')}, and kshot {kshot.__version__} reads "
            f"format {FORMAT}; load it with that version of kshot"
        )
    if config is not None:
        _refuse_another(path, found.get("config"), config)
    return found | {"digest": digest(content)}


def way_out(path: Path) -> str:
    """What can be done with a run if this checkpoint of it is damaged."""
    if path.name == "best.pt":
        return "measure the last checkpoint of the run (kshot evaluate RUN --checkpoint last), or train it again"
    return "measure the best checkpoint of the run (kshot evaluate RUN), or train it again"


def digest(content: bytes) -> str:
    """What identifies the content of a checkpoint."""
    return hashlib.sha256(content).hexdigest()[:16]


def _check_sums(content: bytes) -> None:
    """BadZipFile if a byte of the archive's files is not what was written, which torch itself does not notice.

    Torch compresses nothing, so that no file of its archives unpacks to more than there is.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = [file.filename for file in archive.infolist() if file.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise zipfile.BadZipFile(packed[0])
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)


def load_weights(module: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a learner; CheckpointError if their names or shapes do not fit."""
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} does not fit this {type(module).__name__}: {' '.join(str(error).split())}; "
            f"build the learner as the run's config.yaml says"
        ) from error


def _refuse_another(path: Path, saved: Any, own: dict[str, Any]) -> None:
    if not isinstance(saved, dict) or not all(isinstance(saved.get(part), dict) for part in ("learner", "backbone")):
        raise CheckpointError(f"{path} does not say what it was trained from; train the run again")
    differing = [
        f"{part}.{name} is {saved[part].get(name)!r} there and {own[part].get(name)!r} here"
        for part in ("learner", "backbone")
        for name in sorted(saved[part].keys() | own[part].keys())
        if saved[part].get(name) != own[part].get(name)
    ]
    if differing:
        raise CheckpointError(
            f"{path} belongs to another learner or backbone: {'; '.join(differing)}; "
            f"build the learner as the run's config.yaml says, or choose another run folder"
        )
