"""The embedded dataset: many characters, unseen scripts for testing, no look-alikes between the splits."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import kshot.data as data
from kshot.data import store
from kshot.data.sources import glyphs
from kshot.data.writing import Contents

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def prepared(root: Path) -> data.Dataset:
    return data.load("glyphs", root)


def test_glyphs_are_many_and_their_scripts_do_not_overlap(prepared: data.Dataset, root: Path) -> None:
    splits = [prepared.split(part) for part in PARTS]
    assert sum(split.num_classes for split in splits) >= 1000
    for split in splits:
        assert split.image_shape == (1, 28, 28)
        assert (split.counts == 20).all()
        assert split.normalization.augment == "none"
    scripts = [set(split.domains) for split in splits]
    assert sum(map(len, scripts)) == len(set.union(*scripts))
    assert scripts[2] == {"georgian", "armenian", "cyrillic"}
    for split in splits:
        for name, group in zip(split.class_names, split.domains):
            assert unicodedata.name(unicodedata.lookup(name)).startswith(f"{group.upper()} ")
    sizes = Counter(entry.classes for entry in data.catalog(root) if entry.name == "glyphs")
    assert sizes == {glyphs.Glyphs.classes: 1}  # the catalog's line before preparing is right
    data.verify("glyphs", root)


def test_every_image_shows_a_character_that_is_not_cut_off(prepared: data.Dataset) -> None:
    for part in PARTS:
        images = prepared.split(part).images
        ink = images.reshape(len(images), -1).max(1)
        assert (ink >= 100).all()
        border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)[..., 0]
        assert (border > 128).any(1).mean() < 0.03  # the corner of a box that was turned and shifted to the utmost


def test_images_of_a_class_differ(prepared: data.Dataset) -> None:
    images = prepared.test.images.reshape(-1, 20, 28 * 28)
    distinct = [len(np.unique(own, axis=0)) for own in images]
    assert min(distinct) == 20


@pytest.mark.parametrize(
    "name",
    [
        "CYRILLIC CAPITAL LETTER A",
        "CYRILLIC SMALL LETTER O",
        "CYRILLIC SMALL LETTER SCHWA",
        "CYRILLIC CAPITAL LETTER IO",
        "CYRILLIC SMALL LETTER TE",  # like m in italics
        "CYRILLIC CAPITAL LETTER GHE",  # like the Greek gamma
        "ARMENIAN CAPITAL LETTER OH",
        "ARMENIAN SMALL LETTER HO",
        "GREEK CAPITAL LETTER ALPHA",  # in the split of the Latin A, and the same picture
    ],
)
def test_known_look_alikes_are_dropped(prepared: data.Dataset, name: str) -> None:
    assert all(name not in prepared.split(part).class_names for part in PARTS)
    assert "LATIN CAPITAL LETTER A" in prepared.train.class_names


def outline(character: str, side: int = 20) -> np.ndarray:
    """An independent drawing of a character in DejaVu Sans: black or white, stretched to a square."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    image = Image.new("L", (400, 400))
    ImageDraw.Draw(image).text((120, 120), character, fill=255, font=ImageFont.truetype(str(path), 100))
    box = image.getbbox()
    assert box
    ratio = (box[2] - box[0]) / (box[3] - box[1])
    return np.append(np.asarray(image.crop(box).resize((side, side))).reshape(-1) > 127, [ratio > 0.5, ratio > 2])


def test_no_test_character_has_the_outline_of_a_training_character(prepared: data.Dataset) -> None:
    outlines = {
        part: np.stack([outline(unicodedata.lookup(name)) for name in prepared.split(part).class_names])
        for part in PARTS
    }
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        differing = (outlines[first][:, None] != outlines[second]).mean(2)
        assert differing.min() > 0.02, (first, second)


def drawings(shapes: np.ndarray, proportions: np.ndarray) -> glyphs.Drawings:
    return glyphs.Drawings(shapes.repeat(2, 1).repeat(2, 2), shapes, proportions)


def test_alike_drawings_are_dropped_more_strictly_across_splits() -> None:
    base = np.random.default_rng(0).integers(0, 2, (2, 16, 16)) * 255
    near = base.copy()
    near[:, 0] = 255 - near[:, 0]  # a sixteenth of the pixels differ, that is an eighth of the ink
    shapes = np.concatenate([base, near, base]).astype(np.uint8)
    shapes[5] = 0  # no typeface has it
    upright = drawings(shapes, np.zeros(6, np.float32))
    assert glyphs._distinct([upright], np.asarray([0, 0, 0, 0, 1, 2])).tolist() == [0, 1, 2, 3]
    assert glyphs._distinct([upright], np.asarray([0, 0, 1, 2, 0, 0])).tolist() == [0, 1]
    assert glyphs._distinct([upright], np.asarray([1, 1, 0, 2, 1, 1])).tolist() == [2, 1]
    wide = drawings(shapes, np.asarray([0, 0, 0, 0, 1, 1], np.float32))
    assert glyphs._distinct([wide], np.asarray([0, 0, 1, 2, 0, 0])).tolist() == [0, 1, 4]
    assert glyphs._distinct([wide, upright], np.asarray([0, 0, 1, 2, 0, 0])).tolist() == [0, 1]


def test_glyphs_are_deterministic(prepared: data.Dataset) -> None:
    contents = glyphs.Glyphs().read(None, Path())
    names = [info.name for info in contents.classes]
    for count, (images, labels) in enumerate(contents.batches):
        own = contents.classes[labels[0]]
        split = prepared.split(own.split)
        first = split.starts[split.class_names.index(names[labels[0]])]
        np.testing.assert_array_equal(images[:20], split.images[first : first + 20])
        if count == 3:
            break


def test_a_process_that_was_slower_takes_what_the_other_prepared(
    prepared: data.Dataset, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, False, True])  # not there at first, not when the work begins, but when it ends
    monkeypatch.setattr(store, "is_prepared", lambda name, root: next(answers))
    monkeypatch.setattr(
        glyphs.Glyphs, "read", lambda self, path, root: Contents([], (28, 28, 1), batches=[], origin="other")
    )
    assert data.load("glyphs", root).train.num_classes == prepared.train.num_classes
