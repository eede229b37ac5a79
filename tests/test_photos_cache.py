"""Features that are remembered: by content, within bounds, and never in the way."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time

import numpy as np
import pytest
import torch
from PIL import Image

from kshot.data.images import InputForm
from kshot.photos import FewShotClassifier, photo_features
from kshot.photos.cache import FeatureCache, file_digest
from kshot.photos.features import _thumbnails


class Counting:
    """Mean colours, and how many images were asked for; `key` names the weights."""

    form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=18)
    trained_on = "nothing"

    def __init__(self, key="one"):
        self.key, self.asked = key, 0

    def __call__(self, images):
        self.asked += len(images)
        return images.mean((2, 3))


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(6):
        pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache" / "features.sqlite")


def test_the_second_call_computes_nothing_and_says_the_same(photos, cache):
    network = Counting()
    first = photo_features(network, photos, cache=cache)
    again = photo_features(network, photos[::-1], cache=cache)
    assert network.asked == 6
    assert torch.equal(again.features, first.features.flip(0))
    np.testing.assert_array_equal(again.thumbnails, first.thumbnails[::-1])
    plain = photo_features(Counting(), photos)
    assert torch.equal(plain.features, first.features)
    np.testing.assert_array_equal(plain.thumbnails, first.thumbnails)


def test_thumbnails_of_large_images_are_means_of_four_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 225, 241, 3), np.uint8)
    expected = images[:, :224, :240].reshape(3, 112, 2, 120, 2, 3).mean((2, 4))
    halved = _thumbnails(images)
    assert halved.dtype == np.uint8
    assert np.abs(halved - expected).max() <= 0.5
    assert _thumbnails(images[:, :60, :60]).shape == (3, 60, 60, 3)


def test_content_counts_and_not_the_name(photos, cache):
    network = Counting()
    photo_features(network, photos[:3], cache=cache)
    photos[0].rename(photos[0].with_name("moved.png"))
    photo_features(network, [photos[0].with_name("moved.png")], cache=cache)
    assert network.asked == 3
    photos[1].write_bytes(photos[4].read_bytes())  # the same name, and another photograph
    changed = photo_features(network, [photos[1]], cache=cache)
    assert network.asked == 4
    assert torch.equal(changed.features, photo_features(Counting(), [photos[4]]).features)


def test_other_weights_forms_and_ranges_are_other_features(photos, cache):
    photo_features(Counting(), photos, cache=cache)
    other, wider, ranged = Counting("two"), Counting(), Counting()
    wider.form = InputForm(16, 3 * (0.5,), 3 * (0.25,), resize=20)
    photo_features(other, photos, cache=cache)
    photo_features(wider, photos, cache=cache)
    photo_features(ranged, photos, cache=cache, value_range=(0, 9))
    assert (other.asked, wider.asked, ranged.asked) == (6, 6, 6)
    unnamed = Counting(None)
    for _ in range(2):
        photo_features(unnamed, photos, cache=cache)
    assert unnamed.asked == 12, "a network without a key is not remembered"


def test_broken_files_are_not_remembered(photos, cache):
    photos[2].write_bytes(b"no image")
    network = Counting()
    for asked in (5, 5):
        read = photo_features(network, photos, cache=cache, skip_broken=True)
        assert (network.asked, read.places, len(read.broken)) == (asked, [0, 1, 3, 4, 5], 1)


def test_it_may_be_deleted_damaged_or_forbidden(photos, cache, tmp_path):
    network = Counting()
    expected = photo_features(network, photos, cache=cache).features
    cache.path.unlink()
    photo_features(network, photos, cache=cache)
    for damage in (b"", b"no database", cache.path.read_bytes()[:5000] + bytes(3000)):
        cache.path.write_bytes(damage)
        assert torch.equal(photo_features(network, photos, cache=cache).features, expected)
    with sqlite3.connect(cache.path) as database:  # bytes that are not what was written
        database.execute("UPDATE entries SET content = substr(content, 1, 100) || zeroblob(50)")
    assert torch.equal(photo_features(network, photos, cache=cache).features, expected)
    (tmp_path / "file").touch()
    nowhere = FeatureCache(tmp_path / "file" / "features.sqlite")
    assert torch.equal(photo_features(network, photos, cache=nowhere).features, expected)


def test_it_stays_small_and_forgets_the_oldest(cache, monkeypatch):
    cache.largest = 200_000
    entry = torch.zeros(1000), np.zeros((16, 16, 3), np.uint8)
    for day in range(100):
        monkeypatch.setattr("kshot.photos.cache._today", lambda day=day: day)
        cache.keep({f"key {day}": entry})
        cache.find(["key 0"])
    assert cache.path.stat().st_size < 300_000
    known = cache.find([f"key {day}" for day in range(100)])
    assert {"key 0", "key 99"} <= set(known), "what is used is kept"
    assert "key 1" not in known


def write_some(arguments):
    path, first = arguments
    for number in range(first, first + 40):
        FeatureCache(path).keep({f"key {number}": (torch.full((9,), float(number)), np.zeros((2, 2, 3), np.uint8))})


def test_processes_write_at_the_same_time(cache):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(write_some, [(cache.path, 0), (cache.path, 40)])
    known = cache.find([f"key {number}" for number in range(80)])
    assert len(known) == 80
    assert all(features[0] == int(key[4:]) for key, (features, _) in known.items())


def test_a_classifier_remembers_unless_it_is_told_not_to(photos):
    names = [0, 0, 0, 1, 1, 1]
    network = Counting()
    FewShotClassifier(network).fit(photos, names)
    FewShotClassifier(network).fit(photos, names).predict(photos)
    assert network.asked == 6
    FewShotClassifier(network, cache=False).fit(photos, names)
    assert network.asked == 12


def test_a_thousand_photographs_are_found_in_less_than_a_second(tmp_path, cache):
    for number in range(300):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(tmp_path / f"{number}.bmp")
    paths = sorted(tmp_path.glob("*.bmp"))
    cache.keep({f"{n}": (torch.zeros(1280), np.zeros((112, 112, 3), np.uint8)) for n in range(1000)})
    photo_features(Counting(), paths, cache=cache)
    start = time.process_time()
    photo_features(Counting(), paths, cache=cache)
    cache.find([f"{n}" for n in range(1000)])
    assert time.process_time() - start < 1
    assert file_digest(tmp_path) is None
