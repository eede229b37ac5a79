"""The file of a classifier: safetensors whose metadata hold JSON and a checksum. Nothing in such a file is executed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kshot.errors import CheckpointError
from kshot.files import read_bytes, refused, write_atomically

SUFFIX = ".kshot"
VERSION = 1  # of the format; raised if older versions of kshot cannot read it
_KIND = "kshot classifier"
_LARGEST = 1 << 32  # bytes
_LARGEST_HEADER = 1 << 27  # bytes: names, and the JSON of 100,000 classes


def write_container(path: Path, content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write JSON content and tensors to one file, atomically; OSError if that fails."""
    text = json.dumps(content, ensure_ascii=False)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"kind": _KIND, "version": str(VERSION), "content": text, "checksum": _digest(text, plain)}
    data = save(plain, metadata)

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_atomically(path, write)


def read_container(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Content and tensors of a file that `write_container` wrote.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, no classifier, or of a newer version.
    """
    missing = f"there is no classifier {path}; check the path, or fit one: kshot classifier fit"
    with refused(CheckpointError, missing=missing, unreadable=f"{path} cannot be read"):
        data = read_bytes(path, limit=_LARGEST)
    metadata = _metadata(data, path)
    if metadata.get("kind") != _KIND:
        raise CheckpointError(f"{path} is no classifier of kshot; name a file that FewShotClassifier.save wrote")
    version = str(metadata.get("version"))
    if version.isdecimal() and int(version) > VERSION:
        raise CheckpointError(
            f"{path} was written by a newer kshot (format {version}, and this kshot reads up to {VERSION}): "
            "pip install --upgrade kshot"
        )
    try:
        tensors = load(data)
        text = str(metadata["content"])
        whole = metadata.get("checksum") == _digest(text, tensors)
        content = json.loads(text)
    except (SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, " ".join(str(error).split())) from None
    if not whole:
        raise damaged(path, "its checksum is another")
    if not isinstance(content, dict):
        raise damaged(path, "its description is no mapping")
    return content, tensors


def damaged(path: Path | str, why: str) -> CheckpointError:
    """The error for a file whose content is not what kshot wrote."""
    return CheckpointError(f"{path} is damaged ({why}); copy or download it again, or fit the classifier anew")


def _metadata(data: bytes, path: Path) -> dict[str, Any]:
    """What the header of a safetensors file says beside its tensors."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _LARGEST_HEADER):
        raise damaged(path, "it ends too early, or is no classifier of kshot")
    try:
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise damaged(path, "its header cannot be read") from None
    return metadata if isinstance(metadata, dict) else {}


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the content and of the name, type, shape and numbers of each tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
