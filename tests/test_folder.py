"""A user's own images: any tree, any format, any size."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kshot.data as data
from kshot.data.images import decode, read_images
from kshot.data.sources.folder import image_files
from kshot.errors import ConfigError, DataError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (9, 9, 9), (99, 9, 200)]


def plain(colour: tuple[int, int, int], width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def write_tree(tree: Path, classes: int = 8, images: int = 3) -> Path:
    """Class folders of plain images of the class's colour; class i has `images` + i % 3 of them."""
    for index in range(classes):
        folder = tree / f"class{index}"
        folder.mkdir(parents=True)
        for number in range(images + index % 3):
            plain(COLOURS[index]).save(folder / f"{number}.png")
    return tree


def prepare(tree: Path, root: Path, **options: object) -> data.Dataset:
    data.prepare("folder", tree, name="own", root=root, **options)  # type: ignore[arg-type]
    return data.load("own", root)


def test_a_tree_is_usable_in_one_call(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    dataset = data.load(f"folder:{tree}", tmp_path / "root")
    found = {}
    for part in ("train", "val", "test"):
        split = dataset.split(part)
        assert split.image_shape == (3, 84, 84)
        for label, name in enumerate(split.class_names):
            index = int(name.removeprefix("class"))
            assert split.counts[label] == 3 + index % 3
            assert (split.images[split.labels == label] == COLOURS[index]).all()
            found[name] = part
    assert sorted(found) == [f"class{i}" for i in range(8)]
    assert {part: list(found.values()).count(part) for part in set(found.values())} == {"train": 4, "val": 2, "test": 2}


def test_a_tree_is_prepared_anew_when_its_files_change(tmp_path: Path) -> None:
    tree, root = write_tree(tmp_path / "tree"), tmp_path / "root"
    first = data.load(f"folder:{tree}", root)
    assert data.load(f"folder:{tree}", root).name == first.name
    plain(COLOURS[0]).save(tree / "class0" / "new.png")
    second = data.load(f"folder:{tree}", root)
    assert second.name != first.name
    assert sum(len(second.split(part).images) for part in ("train", "val", "test")) == 32


def test_split_folders_are_respected(tmp_path: Path) -> None:
    write_tree(tmp_path / "all", 8)
    for folder, members in (("train", range(3)), ("validation", range(3, 5)), ("Test", range(5, 8))):
        (tmp_path / "tree" / folder).mkdir(parents=True)
        for index in members:
            (tmp_path / "all" / f"class{index}").rename(tmp_path / "tree" / folder / f"class{index}")
    dataset = prepare(tmp_path / "tree", tmp_path / "root", size=8)
    assert dataset.train.class_names == ("class0", "class1", "class2")
    assert dataset.val.class_names == ("class3", "class4")
    assert dataset.test.class_names == ("class5", "class6", "class7")


def test_without_a_val_folder_some_training_classes_validate(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree" / "train", 6)
    write_tree(tmp_path / "tree" / "test", 8)
    for index in range(6):
        shutil.rmtree(tmp_path / "tree" / "test" / f"class{index}")
    dataset = prepare(tmp_path / "tree", tmp_path / "root", size=8)
    assert (dataset.train.num_classes, dataset.val.num_classes) == (4, 2)
    assert dataset.test.class_names == ("class6", "class7")


def test_the_same_classes_in_train_and_test_are_refused(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_tree(tmp_path / "tree" / part, 3)
    with pytest.raises(DataError, match="'class0' is in train and in val; the splits of few-shot data hold different"):
        prepare(tmp_path / "tree", tmp_path / "root")
    (tmp_path / "tree" / "extra").mkdir()
    with pytest.raises(DataError, match="train and test, and also extra; move them elsewhere"):
        prepare(tmp_path / "tree", tmp_path / "root")


def test_classes_are_shared_out_by_seed_and_fractions(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")

    def homes(root: str, **options: object) -> dict[str, str]:
        dataset = prepare(tree, tmp_path / root, size=4, **options)
        return {name: part for part in ("train", "val", "test") for name in dataset.split(part).class_names}

    assert homes("a", seed=1) == homes("b", seed=1)
    assert len({tuple(homes(f"seed{seed}", seed=seed).items()) for seed in range(5)}) > 1
    sizes = list(homes("c", fractions=(0.25, 0.5, 0.25)).values())
    assert (sizes.count("train"), sizes.count("val"), sizes.count("test")) == (2, 4, 2)


def test_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tree / "class0" / ".hidden.png").write_bytes(b"not an image")
    (tree / ".cache").mkdir()
    (tree / ".cache" / "x.png").write_bytes(b"not an image")
    (tree / "class1" / "more").mkdir()
    plain(COLOURS[1]).save(tree / "class1" / "more" / "deep.JPG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(tree, tmp_path / "root")
    (tree / "class0" / "notes.txt").write_text("these are my images")
    with pytest.warns(UserWarning, match=r"1 files in .*tree are no images and are left out, e.g. .*notes.txt"):
        data.prepare("folder", tree, name="again", root=tmp_path / "root")
    assert len(image_files(tree / "class1")) == 5


def test_all_unreadable_files_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = write_tree(tmp_path / "tree")
    monkeypatch.setattr("kshot.data.sources.folder.BATCH", 4)
    good = (tree / "class0" / "0.png").read_bytes()
    (tree / "class2" / "1.png").write_bytes(good[:40])
    (tree / "class5" / "0.png").write_bytes(b"GIF89a rubbish")
    (tree / "class7" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match="repair, replace or remove them") as caught:
        prepare(tree, tmp_path / "root")
    for name in ("class2/1.png", "class5/0.png", "class7/2.png"):
        assert name in str(caught.value)
    assert list((tmp_path / "root").iterdir()) == []


def test_a_folder_that_cannot_be_listed_is_named_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"file cannot be listed \(Not a directory\); name a folder that exists"):
        prepare(tmp_path / "file", tmp_path)


def test_a_long_list_of_unreadable_files_is_shortened(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(14)]
    with pytest.raises(DataError, match=r"and 4 more") as caught:
        read_images(paths)
    assert str(caught.value).count(".png") >= 10


def test_a_link_to_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tree / "class3" / ".#lock").symlink_to("nowhere")  # an editor's, which is hidden
    prepare(tree, tmp_path / "other")
    (tree / "class3" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"class3/9.png is a link to a file that is gone"):
        data.load(f"folder:{tree}", tmp_path / "root")
    with pytest.raises(DataError, match=r"class3/9.png is a link to a file that is gone"):
        prepare(tree, tmp_path / "root")


def test_too_few_classes_are_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 5)
    with pytest.raises(DataError, match=r"has 5 class folders, and training needs at least 6.*kshot classify"):
        prepare(tree, tmp_path / "root")
    (tree / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images"):
        prepare(tree, tmp_path / "root")
    write_tree(tmp_path / "other", 8)
    with pytest.raises(DataError, match=r"8 classes are too few: 6 would validate, 2 would test"):
        prepare(tmp_path / "other", tmp_path / "root", fractions=(0.1, 0.8, 0.1))
    with pytest.raises(DataError, match="is not a folder; write folder:PATH"):
        data.load(f"folder:{tmp_path}/none", tmp_path / "root")


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"size": 0}, "size is 0"),
        ({"fractions": (0.5, 0.5, 0.5)}, "sum 1"),
        ({"fractions": (1.0, 0.0, 0.0)}, "positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(tmp_path, tmp_path / "root", **options)


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
    pixels = decode(saved(tmp_path, image, f"x.{suffix}"), 9, channels)
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
