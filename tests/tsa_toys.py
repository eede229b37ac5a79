"""A TSA-MAML that trains in all its stages within a second or two, shared by several test files."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from conftest import make_dataset, make_split

from kshot.backbones import Conv4
from kshot.data.dataset import Dataset
from kshot.learners import TSAMAML

TRAINING: dict[str, Any] = {
    "ways": 3,
    "shots": 1,
    "queries": 2,
    "meta_batch": 2,
    "tasks_per_epoch": 6,
    "max_epochs": 2,
    "validation_tasks": 4,
    "validation_queries": 2,
    "schedule": "constant",
    "learning_rate": 0.01,
    "progress": False,
}


def domains_data() -> Dataset:
    """Four classes of eight images in each of two domains, 16x16, in every split."""
    groups = ["bright"] * 4 + ["dark"] * 4
    splits = {
        name: make_split([8] * 8, name=name, size=16, domains=groups, seed=seed)
        for seed, name in enumerate(["train", "val", "test", "train+val"])
    }
    return make_dataset(splits)


def toy_tsa_maml(width: int = 4, **options: Any) -> TSAMAML:
    torch.manual_seed(0)
    options = {"ways": 3, "groups": 2, "assignment_steps": 2, "inner_steps": 1, "test_inner_steps": 2} | options
    return TSAMAML(Conv4(width, in_channels=1, image_size=16), **options)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, calls: int) -> None:
    """SIGINT at the given call of a function."""
    original, seen = getattr(place, name), []

    def counted(*args: Any, **kwargs: Any) -> Any:
        seen.append(None)
        if len(seen) == calls:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, counted)
