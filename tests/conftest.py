"""Small data that every test can make for itself."""

from __future__ import annotations

import errno
import io
import os
import shutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_toys import TINY, prepare_tiny

import kshot.files
from kshot.cli import main
from kshot.data.dataset import Dataset, Normalization, Split

# Rounding depends on the number of threads, and the processes that tests start use one; several also wait for each
# other where cores are shared.
torch.set_num_threads(1)


def make_split(
    counts: list[int],
    *,
    name: str = "train",
    size: int = 8,
    channels: int = 1,
    domains: list[str] | None = None,
    seed: int = 0,
    dataset: str = "toy",
) -> Split:
    """A split whose classes are far apart: every class is one coarse random pattern plus a little noise."""
    generator = np.random.default_rng(seed)
    patterns = generator.choice([40, 215], (len(counts), 4, 4, channels))
    prototypes = patterns.repeat(size // 4, 1).repeat(size // 4, 2)
    noise = generator.normal(0, 12, (sum(counts), size, size, channels))
    images = (np.repeat(prototypes, counts, 0) + noise).clip(0, 255).astype(np.uint8)
    names = tuple(f"{name}-class-{index}" for index in range(len(counts)))
    return Split(
        name=name,
        dataset=dataset,
        images=images,
        counts=np.asarray(counts, np.int64),
        class_names=names,
        domains=tuple(domains or ["all"] * len(counts)),
        normalization=Normalization((0.5,) * channels, (0.25,) * channels, "none"),
    )


def make_dataset(splits: Mapping[str, Split]) -> Dataset:
    """The dataset "toy" of splits by their names, "train+val" among them."""
    return Dataset("toy", **{name.replace("+", "_"): split for name, split in splits.items()})


@pytest.fixture
def toy_split() -> Callable[..., Split]:
    return make_split


@pytest.fixture
def full_disk() -> Callable[[str], AbstractContextManager[None]]:
    """Within ``full_disk("metrics.csv")`` a file of this name can be opened, and takes only the first few bytes."""

    @contextmanager
    def fill(name: str) -> Iterator[None]:
        class FullFile(io.FileIO):
            def write(self, content: Any) -> int:
                super().write(content[:5])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def open_on_full_disk(path: Path, mode: str, **options: Any) -> Any:
            return FullFile(path, mode) if name in path.name and mode == "wb" else open(path, mode, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kshot.files, "open", open_on_full_disk, raising=False)
            yield

    return fill


@pytest.fixture
def toy_data() -> Dataset:
    """Twelve training, six validation and six test classes of 24 images, 16x16, one channel."""
    splits = {
        name: make_split([24] * classes, name=name, size=16, seed=seed)
        for seed, (name, classes) in enumerate([("train", 12), ("val", 6), ("test", 6), ("train+val", 18)])
    }
    return make_dataset(splits)


@pytest.fixture
def real_data() -> Path:
    """The folder of real images, named by KSHOT_REAL_DATA; tests that want it skip where there is none."""
    folder = os.environ.get("KSHOT_REAL_DATA")
    if not folder:
        pytest.skip("KSHOT_REAL_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture
def scripted_validation(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[float]], list[tuple[Any, ...]]]:
    """Replaces validation by given accuracies; returns the list of calls."""

    def install(accuracies: Sequence[float]) -> list[tuple[Any, ...]]:
        remaining = iter(accuracies)
        calls: list[tuple[Any, ...]] = []

        def evaluate(*args: Any, **kwargs: Any) -> types.SimpleNamespace:
            calls.append((*args, *kwargs.items()))
            return types.SimpleNamespace(mean=next(remaining), ci95=0.01)

        monkeypatch.setattr("kshot.training.validation.evaluate", evaluate)
        return calls

    return install


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared datasets that holds `tiny`."""
    folder = tmp_path_factory.mktemp("root")
    prepare_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def trained_runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name, learner, seed in (("mtl-0", "mtl", "0"), ("mtl-1", "mtl", "1"), ("proto", "protonet", "0")):
        words = ["train", *TINY, "--learner", learner, "--seed", seed]
        assert main([*words, "--root", str(tiny_root), "--run", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(trained_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trained runs without evaluations: mtl with two seeds, protonet."""
    return Path(shutil.copytree(trained_runs, tmp_path_factory.mktemp("runs") / "copy"))


@pytest.fixture
def say(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.setenv("KSHOT_ROOT", str(tiny_root))
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(autouse=True)
def own_feature_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of photographs are remembered within one test, and not in the cache of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("kshot.photos.cache.DEFAULT", folder / "photo-features.sqlite")
