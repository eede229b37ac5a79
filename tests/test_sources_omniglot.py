"""Omniglot from its zip archives, by three splits, on small copies made here."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from source_files import PARTS, png

import kshot.data as data
from kshot.data.sources import omniglot
from kshot.errors import DataError

# Alphabets of the two sets with their numbers of characters.
EVALUATION = {
    "Angelic": 20, "Atemayar_Qelisayer": 26, "Atlantean": 26, "Aurek-Besh": 26, "Avesta": 26, "Ge_ez": 26,
    "Glagolitic": 45, "Gurmukhi": 45, "Kannada": 41, "Keble": 26, "Malayalam": 47, "Manipuri": 40, "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45, "Oriya": 46, "Sylheti": 28, "Syriac_(Serto)": 23, "Tengwar": 25,
    "Tibetan": 42, "ULOG": 26,
}  # fmt: skip
BACKGROUND = {
    "Armenian": 41, "Bengali": 46, "Early_Aramaic": 22, "Hebrew": 22, "Mkhedruli_(Georgian)": 41,
    **{f"Alphabet{i:02}": 32 for i in range(24)}, "Zulu": 24,
}  # fmt: skip


def write_omniglot(folder: Path, part: str, alphabets: dict[str, int]) -> Path:
    """The official layout, with one small drawing shared by all members of an alphabet's character."""
    path = folder / f"{part}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{part}/", "")
        for number, (alphabet, characters) in enumerate(sorted(alphabets.items())):
            for character in range(1, characters + 1):
                drawing = np.full((105, 105), 255, np.uint8)
                drawing[:30, :10] = 0  # ink, at the top left
                drawing[-1, number], drawing[-2, character] = 0, 0
                content = png(drawing)
                for drawer in range(1, 21):
                    archive.writestr(f"{part}/{alphabet}/character{character:02}/0001_{drawer:02}.png", content)
    return path


@pytest.fixture(scope="module")
def omniglot_zips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("omniglot")
    write_omniglot(folder, "images_background", BACKGROUND)
    write_omniglot(folder, "images_evaluation", EVALUATION)
    return folder


def test_omniglot_by_the_split_of_vinyals(omniglot_zips: Path) -> None:
    contents = omniglot.Omniglot().read(omniglot_zips, omniglot_zips)
    sizes = {part: sum(info.split == part for info in contents.classes) // 4 for part in PARTS}
    assert sizes == {"train": 1028, "val": 172, "test": 423}
    home = {info.name: info.split for info in contents.classes}
    assert home["Gurmukhi/character41/rot000"] == "train"
    assert home["Gurmukhi/character42/rot000"] == "test"
    assert home["Hebrew/character01/rot090"] == "val"
    assert home["ULOG/character26/rot270"] == "test"
    assert {info.domain for info in contents.classes} == set(BACKGROUND) | set(EVALUATION)


def test_omniglot_by_the_split_of_lake(omniglot_zips: Path) -> None:
    contents = omniglot.OmniglotLake().read(omniglot_zips, omniglot_zips)
    alphabets = {part: {info.domain for info in contents.classes if info.split == part} for part in PARTS}
    assert alphabets["test"] == set(EVALUATION)
    assert alphabets["train"] | alphabets["val"] == set(BACKGROUND)
    assert (len(alphabets["train"]), len(alphabets["val"])) == (25, 5)


def test_omniglot_turns_every_character_and_paints_ink_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alphabets = {f"Alphabet{i:02}": 2 for i in range(14)}
    monkeypatch.setitem(omniglot.CHARACTERS, "images_background", 28)
    path = write_omniglot(tmp_path, "images_background", alphabets)
    data.prepare("omniglot-background", path, root=tmp_path / "root")
    dataset = data.load("omniglot-background", tmp_path / "root")
    assert (dataset.train.num_classes, dataset.val.num_classes, dataset.test.num_classes) == (32, 40, 40)
    split = dataset.test
    for label, name in enumerate(split.class_names):
        upright = split.images[split.starts[label - label % 4]]
        turns = int(name[-3:]) // 90
        assert turns == label % 4
        images = split.images[split.labels == label]
        assert images.shape == (20, 28, 28, 1)
        np.testing.assert_array_equal(images[0], np.rot90(upright, turns))
        assert (split.domains[label], split.domains[label - turns]) == (name.split("/")[0],) * 2
    corner = split.images[0, :8, :2, 0]
    assert corner.min() > 200
    assert split.images[0, 10:20, 10:20].max() == 0
    assert split.normalization.augment == "none"


def test_omniglot_refuses_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_omniglot(tmp_path, "images_background", {"A": 3})
    with pytest.raises(DataError, match="has 3 characters, not 964"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")
    with pytest.raises(DataError, match=r"images_evaluation.zip does not exist.*brendenlake/omniglot"):
        data.prepare("omniglot", path, root=tmp_path / "root")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images_background/B/character01/0001_01.png", b"")
    with pytest.raises(DataError, match="B/character01 has 1 drawings, not 20"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")
    monkeypatch.setitem(omniglot.CHARACTERS, "images_background", 14)
    path = write_omniglot(tmp_path, "images_background", {f"Alphabet{i:02}": 1 for i in range(14)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"images_background.zip cannot be read"):
        data.prepare("omniglot-background", path, root=tmp_path / "root")
