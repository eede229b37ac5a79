"""Checkpoints that survive a kill, and that refuse to be loaded into something else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch

import kshot
from kshot.errors import CheckpointError
from kshot.files import write_atomically

FORMAT = 1


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically; CheckpointError where the disk refuses, and the previous one is then untouched."""
    stamped = {"format": FORMAT, "kshot": kshot.__version__} | content
    try:
        write_atomically(path, lambda file: torch.save(stamped, file))
    # torch's zip writer turns a failed write into a RuntimeError of its own
    except (OSError, RuntimeError) as error:
        kept = "the previous one is untouched" if path.exists() else "there was none before"
        raise CheckpointError(
            f"the checkpoint {path} could not be written ({error}), and {kept}; free some space, "
            f"or correct the folder's permissions, and resume the run"
        ) from error


def load(path: Path, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint without running any code from it.

    config: what the learner and the backbone that will receive it are built from; None to accept any.
    Raises CheckpointError where the file is missing, damaged, of another format, or of another learner or backbone.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}: train the run first, or check the folder's name")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["format"]
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, BadZipFile, pickle.UnpicklingError) as e:
        raise CheckpointError(
            f"{path} is damaged or was not written by kshot ({type(e).__name__}); "
            f"use the run's other checkpoint, or delete this one and train again"
        ) from e
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found}, written by kshot {content.get('kshot')}, and kshot {kshot.__version__} reads "
            f"format {FORMAT}; load it with that version of kshot"
        )
    if config is not None:
        _refuse_another(path, content["config"], config)
    return content


def load_weights(module: torch.nn.Module, weights: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a learner; CheckpointError where their names or shapes do not fit."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not fit this {type(module).__name__}: {error}; "
            f"build the learner as the run's config.yaml says"
        ) from error


def _refuse_another(path: Path, saved: dict[str, Any], own: dict[str, Any]) -> None:
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
