"""The page on datasets: its code runs as printed, and its table knows every source."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_sources import prepare_part

import kshot
from kshot.cli import main
from kshot.data.sources import SOURCES, Source
from kshot.errors import DataError

PAGE = Path(__file__).parents[1] / "docs" / "adding-a-dataset.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the folder of animals and the prepared datasets that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KSHOT_ROOT", str(tmp_path / "root"))
    write_images(tmp_path / "animals", [f"animal{number}" for number in range(8)], count=12)
    for seed, name in enumerate(("birds", "fungi", "aircraft")):
        prepare_part(tmp_path / "root", name, (8, 8, 3), seed)
    return tmp_path


def write_images(folder: Path, names: list[str], count: int, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / name / f"{number}.png")


def test_python_runs_as_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), namespace)
    printed = capsys.readouterr().out
    assert "Dataset 'measurements': vectors of 64 features, float32" in printed
    assert len(re.findall(r"measurements|waves|lines", printed)) >= 3
    assert issubclass(namespace["Flags"], Source)


def test_commands_run_as_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 3
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "kshot"
        assert main(words) == 0, (command, capsys.readouterr().err)
    assert (place / "animals-test.png").exists()


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch, place: Path) -> Path:
    """The release of the flags, for the source of the page in its table."""
    (printed,) = (block for block in blocks("python") if "class Flags" in block)
    namespace: dict[str, Any] = {"__name__": "kshot.data.sources.flags"}
    exec(compile(printed, "flags.py", "exec"), namespace)
    monkeypatch.setitem(SOURCES, "flags", namespace["Flags"])
    folder = place / "flags"
    for seed, part in enumerate(("train", "val", "test")):
        names = [f"{part}-{number}" for number in range(2)]
        write_images(folder, names, count=30, seed=seed)
        (folder / f"{part}.txt").write_text("".join(f"{name},continent {name[-1]}\n" for name in names))
    return folder


def test_the_source_of_the_page_prepares_its_dataset(flags: Path) -> None:
    kshot.prepare("flags", flags)
    data = kshot.load("flags")
    assert data.test.class_names == ("test-0", "test-1")
    assert data.test.domains == ("continent 0", "continent 1")
    assert data.train.counts.tolist() == [30, 30]
    assert kshot.verify("flags").startswith("flags: 180 images")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "val.txt").unlink(), "val.txt does not exist. Pass the folder flags"),
        (lambda folder: (folder / "val.txt").write_text("peru\n"), "val.txt is no list of COUNTRY,CONTINENT"),
        (lambda folder: (folder / "val.txt").write_text(""), "val.txt is no list of COUNTRY,CONTINENT"),
        (lambda folder: (folder / "val.txt").write_text("peru,a\nchad,b\n"), "should hold 30 images of each country"),
        (lambda folder: (folder / "test-1" / "3.png").unlink(), "should hold 30 images of each country"),
        (lambda folder: (folder / "test-1" / "3.png").write_bytes(b"x"), "cannot be read as images"),
    ],
)
def test_the_source_of_the_page_refuses_an_unexpected_folder(flags: Path, damage: Any, message: str) -> None:
    damage(flags)
    with pytest.raises(DataError, match=message):
        kshot.prepare("flags", flags)
    with pytest.raises(DataError, match=r"is not prepared.*Pass the folder flags"):
        kshot.load("flags")


def test_every_source_has_a_row_in_the_table_of_the_page() -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall("`([^`]+)`", row[1])}
    missing = [source for source in SOURCES.values() if source.name not in named and not source.needs_name]
    wanted = [f"| `{source.name}` | {source.classes} | {source.obtain} |" for source in missing]
    assert not wanted, f"add to the table of public datasets in {PAGE.name}:\n" + "\n".join(wanted)
