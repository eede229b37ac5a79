"""A user's own images: any tree, any format, any size."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

import kshot.data as data
from kshot.data.folders import image_files
from kshot.data.images import read_images
from kshot.errors import ConfigError, DataError

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (90, 9, 9), (9, 9, 90)]


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


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Validation", "Testing"),
        ("TRAIN_DATA", "dev", "TestSet"),
        ("train-images", "valid", "tests"),
        ("training set", "val2017", "test2017"),
    ],
)
def test_folders_named_after_splits_in_any_spelling_are_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    write_tree(tmp_path / "all", 6)
    for part, name in enumerate(names):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for index in (2 * part, 2 * part + 1):
            (tmp_path / "all" / f"class{index}").rename(tmp_path / "tree" / name / f"class{index}")
    dataset = prepare(tmp_path / "tree", tmp_path / "root", size=8)
    assert dataset.train.class_names == ("class0", "class1")
    assert dataset.val.class_names == ("class2", "class3")
    assert dataset.test.class_names == ("class4", "class5")


def test_splits_of_which_one_is_missing_are_named(tmp_path: Path) -> None:
    for part in ("Training", "Validation"):
        write_tree(tmp_path / "tree" / part, 4)
    with pytest.raises(DataError, match="has the folders Training, Validation, which read as splits, but not both"):
        prepare(tmp_path / "tree", tmp_path / "root")


def test_a_single_class_with_the_name_of_a_split_is_a_class(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 7)
    (tree / "class0").rename(tree / "train")
    dataset = prepare(tree, tmp_path / "root", size=8)
    assert "train" in {name for part in ("train", "val", "test") for name in dataset.split(part).class_names}


def test_classes_with_too_few_images_are_left_out_and_named(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", 8, images=5)
    for index, count in ((2, 1), (5, 0), (6, 3)):
        for file in sorted((tree / f"class{index}").iterdir())[count:]:
            file.unlink()
    with (
        pytest.warns(UserWarning, match="3 of 8 classes have fewer than 4 images and are left out") as caught,
        pytest.raises(DataError, match="has 5 class folders, and training needs at least 6"),
    ):
        prepare(tree, tmp_path / "root", min_images=4)
    assert "class2 (1), class5 (0), class6 (3)" in str(caught[0].message)
    with pytest.warns(UserWarning, match=r"1 of 8 classes have fewer than 1 images and are left out: class5 \(0\)"):
        dataset = prepare(tree, tmp_path / "root", min_images=1)
    assert sum(dataset.split(part).num_classes for part in ("train", "val", "test")) == 7


def nested_tree(tree: Path) -> Path:
    """Two folders of three folders of images, next to two class folders."""
    write_tree(tree, 8)
    for outer, members in (("food", range(2, 5)), ("animals", range(5, 8))):
        for index in members:
            (tree / outer).mkdir(exist_ok=True)
            (tree / f"class{index}").rename(tree / outer / f"class{index}")
    return tree


def test_folders_of_class_folders_are_no_silent_class(tmp_path: Path) -> None:
    tree = nested_tree(tmp_path / "tree")
    with pytest.raises(DataError, match=r"2 folders hold no images, but several folders: .*animals with") as raised:
        prepare(tree, tmp_path / "root")
    for word in ("food with class2, class3, class4", "--nested classes", "--nested join"):
        assert word in str(raised.value)
    (tree / "animals" / "class5").rename(tree / "elsewhere")
    (tree / "animals" / "class6").rename(tree / "elsewhere too")  # one inner folder is no matter of doubt
    with pytest.raises(DataError, match="1 folders hold no images, but several folders"):
        prepare(tree, tmp_path / "root")


def test_nested_folders_become_what_is_chosen(tmp_path: Path) -> None:
    tree = nested_tree(tmp_path / "tree")
    dataset = prepare(tree, tmp_path / "root", nested="classes", size=8)
    domains = {
        name: domain
        for part in ("train", "val", "test")
        for name, domain in zip(dataset.split(part).class_names, dataset.split(part).domains)
    }
    assert domains == {
        **{f"class{index}": "all" for index in (0, 1)},
        **{f"food/class{index}": "food" for index in (2, 3, 4)},
        **{f"animals/class{index}": "animals" for index in (5, 6, 7)},
    }
    with pytest.raises(DataError, match="has 4 class folders"):
        prepare(tree, tmp_path / "joined", nested="join")


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
    (tree / "void").mkdir()
    with pytest.raises(DataError, match=r"2 folders hold no images: empty, void; .*--min-images 1"):
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
        ({"min_images": 0}, "min_images is 0, but must be at least 1"),
        ({"value_range": (5.0, 5.0)}, "from 5.0 to 5.0; give the lower value first"),
        ({"nested": "merge"}, "nested is 'merge'; choose one of: refuse, join, classes"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(tmp_path, tmp_path / "root", **options)
