"""A prepared dataset that is damaged, replaced, or half replaced: said at once, and never mixed with another."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_toys import MEASURE, prepare_tiny

from kshot import data
from kshot.data import store
from kshot.errors import DataError
from kshot.runs import Run


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_root, tmp_path / "root"))


def change_meta(root: Path, change: Any, *, earlier: bool) -> None:
    """Change meta.json; `earlier`: as a version of kshot wrote it that knew no checksum of it."""
    path = root / "tiny" / "meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    if earlier:
        del meta["checksum"], meta["blocks"]
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda meta: meta["normalization"].update(mean=[float("nan")]),
        lambda meta: meta["normalization"].update(std=[1.5]),
        lambda meta: meta["normalization"].update(std=[0]),
        lambda meta: meta["normalization"].update(mean={"a": 1}),
        lambda meta: meta["normalization"].update(mean=[0.5, 0.5]),
        lambda meta: meta["normalization"].update(augment="flip"),
        lambda meta: meta["classes"][0].update(count="12"),
        lambda meta: meta["classes"][0].update(name=None),
        lambda meta: meta.update(shape=[1, 2]),
        lambda meta: meta.update(sha256=3),
        lambda meta: meta.update(classes=5),
        lambda meta: meta.update(tasks_within_groups="no"),
    ],
)
def test_a_damaged_meta_is_said_by_load_and_by_verify(root: Path, change: Any, earlier: bool) -> None:
    change_meta(root, change, earlier=earlier)
    for use in (data.load, data.verify):
        with pytest.raises(DataError, match=r"tiny is damaged: .*; prepare it again"):
            use("tiny", root)


def test_a_plausible_change_of_meta_is_noticed_by_its_checksum(root: Path) -> None:
    change_meta(root, lambda meta: meta["normalization"].update(mean=[0.25]), earlier=False)
    with pytest.raises(DataError, match=r"the checksum of meta\.json differs"):
        data.load("tiny", root)


def test_datasets_of_an_earlier_version_are_read(root: Path) -> None:
    before = data.load_images("tiny", root)
    change_meta(root, lambda meta: None, earlier=True)
    assert "are right" in data.verify("tiny", root)
    after = data.load_images("tiny", root)
    np.testing.assert_array_equal(before.test.images, after.test.images)
    assert before.test.checksum == after.test.checksum is not None


def test_damaged_images_are_said_when_the_dataset_is_opened(root: Path) -> None:
    path = root / "tiny" / "images.npy"
    whole, dice = path.read_bytes(), random.Random(0)
    damages = [whole[:-1], whole + b"\0", b"", b"PK\x03\x04" + whole[4:]]
    for _ in range(20):
        flipped = bytearray(whole)
        flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        damages.append(bytes(flipped))
    for content in damages:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"tiny is damaged: .*images\.npy .*; prepare it again"):
            data.load("tiny", root)


@pytest.mark.parametrize("form", ["npz", "fortran"])
def test_another_form_of_array_is_refused(root: Path, form: str) -> None:
    path = root / "tiny" / "images.npy"
    images = np.load(path)
    with open(path, "wb") as file:
        if form == "npz":
            np.savez(file, images=images)
        else:
            np.save(file, np.asfortranarray(images))
    with pytest.raises(DataError, match=r"images\.npy"):
        data.load("tiny", root)


def test_numbers_of_different_data_are_not_paired(root: Path, trained_runs: Path, tmp_path: Path, say: Any) -> None:
    """A dataset that was prepared again with other content is another one, whatever its name."""
    first, second = (Path(shutil.copytree(trained_runs / name, tmp_path / name)) for name in ("mtl-0", "mtl-1"))
    assert say("evaluate", first, *MEASURE, "--root", root)[0] == 0
    path = root / "tiny" / "images.npy"
    images = np.load(path, mmap_mode="r")[::-1]
    other = Path(tmp_path / "other")
    shutil.copytree(root, other)
    np.save(other / "tiny" / "images.npy", np.ascontiguousarray(images))
    digest = store.read_through("tiny", other / "tiny" / "images.npy", classes=_classes(other))
    change_meta(other, lambda meta: meta.update(sha256=digest), earlier=True)
    assert say("evaluate", second, *MEASURE, "--root", other)[0] == 0
    assert say("report", first, second)[0] == 0
    page = Path("report.html").read_text()
    assert "tiny was prepared again between some of these measurements" in page
    assert page.count("30 tasks of tiny/test</h2>") == 2
    measured = Run(second, root=root)
    assert measured.measure.__self__ is measured
    _, _, err = say("compare", first, second, *MEASURE, "--root", root)
    assert err.count("evaluating") == 1, "the second one again, on the present data"


def _classes(root: Path) -> list[Any]:
    return store._read_meta("tiny", root / "tiny").classes


SWAP = "import os, signal, sys\nfrom pathlib import Path\nimport kshot.data.writing as writing\n"
SWAP += "rename, count = os.rename, []\n"
SWAP += "def killed(*names):\n    count.append(1)\n"
SWAP += "    if len(count) == int(sys.argv[2]):\n        os.kill(os.getpid(), signal.SIGKILL)\n    rename(*names)\n"
SWAP += "writing.os.rename = killed\n"
SWAP += "from cli_toys import prepare_tiny\nprepare_tiny(Path(sys.argv[1]), overwrite=True)\n"


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_the_renames_leaves_a_dataset(root: Path, at: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    process = subprocess.run([sys.executable, "-c", SWAP, str(root), str(at)], env=environment, check=False)
    assert process.returncode == -9
    assert store.is_prepared("tiny", root)
    assert "are right" in data.verify("tiny", root)
    prepare_tiny(root, overwrite=True)
    assert [path.name for path in root.iterdir()] == ["tiny"]
