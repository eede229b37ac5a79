"""Image files of any format, mode and range of values as arrays of bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_folder import plain, prepare

from kshot.data.images import decode, find_value_range, read_images


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path: Path) -> None:
    image = plain((0, 0, 0), 90, 30)
    image.paste((255, 255, 255), (30, 0, 60, 30))
    image.save(tmp_path / "wide.png")
    image.rotate(90, expand=True).save(tmp_path / "tall.png")
    images = read_images([tmp_path / "wide.png", tmp_path / "tall.png"], size=10)
    assert images.shape == (2, 10, 10, 3)
    assert (images[:, 1:-1, 1:-1] == 255).all()


def test_images_that_fit_are_not_touched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_images([tmp_path / "x.png"], size=12)[0], pixels)


def saved(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: object) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_orientation_from_the_camera_is_applied(tmp_path: Path) -> None:
    image = plain((0, 0, 0), 20, 20)
    image.paste((255, 255, 255), (0, 0, 20, 10))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the upper half comes to the right
    path = saved(tmp_path, image, exif=exif)
    assert decode(path, 20)[10, 15, 0] == 255
    assert decode(path, 20)[10, 5, 0] == 0


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 4))
    pixels = decode(saved(tmp_path, image), 8)
    assert (pixels[:4] == 255).all()
    assert (pixels[4:] == (200, 0, 0)).all()
    grey = Image.new("LA", (8, 8), (0, 0))
    assert (decode(saved(tmp_path, grey), 8) == 255).all()


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert (decode(saved(tmp_path, image), 8) == (200, 100, 50)).all()
    assert (decode(saved(tmp_path, image, transparency=1), 8) == 255).all()
    assert (decode(saved(tmp_path, image, "x.gif"), 8) == (200, 100, 50)).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.asarray([[0, 25_600], [51_300, 65_535]], np.uint16).repeat(4, 0).repeat(4, 1)
    pixels = decode(saved(tmp_path, Image.fromarray(values), f"x.{suffix}"), 8)
    np.testing.assert_array_equal(pixels[::4, ::4, 0], [[0, 100], [200, 255]])


def test_floating_point_is_stretched(tmp_path: Path) -> None:
    values = np.asarray([[-1, 0], [0, 1]], np.float32).repeat(4, 0).repeat(4, 1)
    pixels = decode(saved(tmp_path, Image.fromarray(values), "x.tif"), 8)
    np.testing.assert_array_equal(pixels[::4, ::4, 0], [[0, 128], [128, 255]])


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_become_colour_or_grey(tmp_path: Path, mode: str, channels: int) -> None:
    image = plain((255, 255, 255), 9, 9).convert(mode)
    suffix = "png" if mode in ("1", "L", "RGB") else "jpg"
    pixels = decode(saved(tmp_path, image, f"x.{suffix}"), 9, channels=channels)
    assert pixels.shape == (9, 9, channels)
    assert pixels.dtype == np.uint8
    assert pixels.min() >= 253


def test_large_photographs_are_read_at_a_lower_resolution_with_the_same_content(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)
    image = Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC)
    image.save(tmp_path / "x.jpg", quality=95, subsampling=0)
    image.save(tmp_path / "x.png")
    jpeg, exact = read_images([tmp_path / "x.jpg", tmp_path / "x.png"], size=72).astype(int)
    assert np.abs(jpeg - exact).mean() < 4


# The range of values ------------------------------------------------------------------------------------------------


def deep_tree(tree: Path, low: int, high: int, dtype: type[np.generic], suffix: str, seed: int = 0) -> Path:
    """Six classes of four images whose values lie between `low` and `high`, which both occur in every class."""
    generator = np.random.default_rng(seed)
    for label in range(6):
        (tree / f"class{label}").mkdir(parents=True)
        for number in range(4):
            values = generator.uniform(low, high, (12, 12))
            values[0, :2] = low, high
            Image.fromarray(values.astype(dtype)).save(tree / f"class{label}" / f"{number}.{suffix}")
    return tree


@pytest.mark.parametrize(
    ("low", "high", "dtype", "suffix"),
    [
        (0, 1023, np.uint16, "png"),
        (0, 4095, np.uint16, "tif"),
        (500, 65535, np.uint16, "png"),
        (-1024, 3071, np.int32, "tif"),
        (-1, 1, np.float32, "tif"),
        (0, 1_000_000, np.float32, "tif"),
    ],
)
def test_the_range_of_values_is_that_of_the_dataset(
    tmp_path: Path, low: int, high: int, dtype: type[np.generic], suffix: str
) -> None:
    tree = deep_tree(tmp_path / "tree", low, high, dtype, suffix)
    dim = Image.fromarray(np.full((12, 12), low + (high - low) / 4).astype(dtype))
    for label in range(6):  # an image of its own range would become black or white
        dim.save(tree / f"class{label}" / f"dim.{suffix}")
    dataset = prepare(tree, tmp_path / "root", size=12)
    step = 255 / (high - low)
    for part in ("train", "val", "test"):
        split = dataset.split(part)
        for label, name in enumerate(split.class_names):
            images = split.images[split.labels == label][..., 0]
            files = sorted((tree / name).iterdir())
            for image, file in zip(images, files):
                values = np.asarray(Image.open(file)).astype(float)
                np.testing.assert_allclose(image, (values - low) * step, atol=0.51)


def test_the_range_comes_from_the_training_classes_alone(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for seed, (part, high) in enumerate((("train", 1000), ("val", 4000), ("test", 4000))):
        deep_tree(tmp_path / part, 0, high, np.uint16, "png", seed)
        for label in range(2):
            (tree / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / f"class{label}").rename(tree / part / f"{part}-class{label}")
    dataset = prepare(tree, tmp_path / "root", size=12)
    assert dataset.train.images[0, 0, 1, 0] == 255
    assert (dataset.test.images == 255).mean() > 0.5  # values above 1000
    stated = prepare(tree, tmp_path / "other", size=12, value_range=(0.0, 4000.0))
    assert stated.train.images[0, 0, 1, 0] == round(1000 / 4000 * 255)
    assert (stated.test.images == 255).mean() < 0.02


def test_nearly_black_images_are_named(tmp_path: Path) -> None:
    tree = deep_tree(tmp_path / "tree", 0, 1000, np.uint16, "png")
    dead = np.zeros((12, 12), np.uint16)
    Image.fromarray(dead).save(tree / "class3" / "cap on.png")
    with pytest.warns(UserWarning, match=r"1 of 25 images are nearly black: .*/cap on.png; values from 0 to 1000"):
        prepare(tree, tmp_path / "root", size=12)
    with pytest.warns(UserWarning, match=r"25 of 25 images are nearly black: .* and 15 more.*--value-range LOW HIGH"):
        prepare(tree, tmp_path / "other", size=12, value_range=(0.0, 65535.0))


def test_loose_files_share_one_range(tmp_path: Path) -> None:
    for name, value in (("a", 100), ("b", 300), ("c", 500)):
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    assert find_value_range([*paths, tmp_path / "broken.png", tmp_path / "nan.tif"]) == (100, 500)
    np.testing.assert_array_equal(read_images(paths, size=8)[:, 0, 0, 0], [0, 128, 255])
    np.testing.assert_array_equal(read_images(paths[:1], size=8, value_range=(0, 1000))[0, 0, 0], [26] * 3)
    assert (decode(tmp_path / "nan.tif", 8, value_range=(0, 1)) == 0).all()
    plain((1, 2, 3)).save(tmp_path / "bytes.png")
    assert find_value_range([tmp_path / "bytes.png"]) is None
