"""Augmentation against PIL, one image at a time, and against the distributions that torchvision draws from."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torch import Tensor

from kshot.data import augmentation as augmentation_module
from kshot.data.augmentation import (
    PhotoAugmentation,
    augmentation_for,
    normalize,
    to_float,
)
from kshot.data.dataset import Normalization
from kshot.data.pixels import AugmentationParameters
from kshot.errors import ConfigError

OPERATIONS = ("brightness", "contrast", "saturation")
ORDERS = list(itertools.permutations(OPERATIONS))
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
SHAPES = [(32, 4, 3), (84, 8, 3), (28, 3, 1), (11, 0, 3)]


def make_images(tasks: int, per_task: int, size: int, channels: int, seed: int = 0) -> Tensor:
    """Smooth blobs plus noise, some of them so bright or dark that the clamps of the colour jitter matter."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(-80, 340, (tasks * per_task, 4, 4, channels))
    fine = np.repeat(np.repeat(coarse, -(-size // 4), 1), -(-size // 4), 2)[:, :size, :size]
    noisy = (fine + generator.normal(0, 20, fine.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(noisy).unflatten(0, (tasks, per_task))


def make_keys(tasks: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, tasks, np.uint64)


def by_pil(image: NDArray[np.uint8], padding: int, parameters: AugmentationParameters, at: tuple[int, int]) -> NDArray:
    """What torchvision does to a PIL image, with given parameters: (H, W, C), levels 0..255."""
    height, width, channels = image.shape
    photograph = ImageOps.expand(Image.fromarray(image if channels == 3 else image[..., 0]), padding, 0)
    top, left = parameters.top[at], parameters.left[at]
    photograph = photograph.crop((left, top, left + width, top + height))
    for operation in ORDERS[parameters.order[at]]:
        photograph = ENHANCERS[operation](photograph).enhance(getattr(parameters, operation)[at])
    if parameters.flip[at]:
        photograph = photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(photograph).reshape(height, width, channels).astype(np.float64)


def by_definition(
    image: NDArray[np.uint8], padding: int, parameters: AugmentationParameters, at: tuple[int, int]
) -> NDArray[np.float64]:
    """The same without PIL's truncation to whole levels after every operation: (H, W, C), levels 0..255, float64."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * padding, width + 2 * padding, channels))
    padded[padding : padding + height, padding : padding + width] = image
    top, left = parameters.top[at], parameters.left[at]
    x = padded[top : top + height, left : left + width]
    for operation in ORDERS[parameters.order[at]]:
        gray = x @ np.asarray([0.299, 0.587, 0.114])[:, None] if channels == 3 else x
        other = {"brightness": 0.0, "contrast": np.rint(gray).mean(), "saturation": gray}[operation]
        factor = getattr(parameters, operation)[at]
        x = (factor * x + (1 - factor) * other).clip(0, 255)
    return x[:, ::-1] if parameters.flip[at] else x


def references(
    function: Callable[..., NDArray], images: Tensor, augmentation: PhotoAugmentation, keys: NDArray[np.uint64]
) -> NDArray:
    """`function` on each image, with the parameters that the batched augmentation draws: (B, M, H, W, C)."""
    tasks, per_task = images.shape[:2]
    parameters = augmentation.parameters(keys, per_task)
    every = itertools.product(range(tasks), range(per_task))
    results = [function(images[at].numpy(), augmentation.padding, parameters, at) for at in every]
    return np.stack(results).reshape(images.shape)


def assert_equals_definition(augmentation: PhotoAugmentation, images: Tensor, keys: NDArray[np.uint64]) -> None:
    """In float64; a gray value within rounding of half a level may go either way, and moves the mean by 1 / pixels."""
    pixels = images.shape[2] * images.shape[3]
    expected = references(by_definition, images, augmentation, keys)
    np.testing.assert_allclose(levels(augmentation(images, keys)), expected, atol=1e-3 + 2 / pixels, rtol=0)


def levels(augmented: Tensor) -> NDArray[np.float64]:
    return augmented.movedim(-3, -1).double().numpy() * 255


@pytest.mark.parametrize(("size", "padding", "channels"), SHAPES)
def test_every_image_agrees_with_pil(size: int, padding: int, channels: int) -> None:
    images, keys, augmentation = make_images(3, 20, size, channels), make_keys(3), PhotoAugmentation(padding)
    difference = levels(augmentation(images, keys)) - references(by_pil, images, augmentation, keys)
    # PIL truncates to whole levels after each operation: it loses under one level in each, and a later operation
    # multiplies by at most 1.4 what an earlier one lost: below 1 + 1.4 + 1.96 = 4.4, and about half a level on average.
    assert np.abs(difference).max() < 4.4
    assert np.quantile(np.abs(difference), 0.95) < 2.5
    assert 0 <= difference.mean() < 1.5


@pytest.mark.parametrize(("size", "padding", "channels"), SHAPES)
def test_every_image_agrees_with_the_definition_in_float64(size: int, padding: int, channels: int) -> None:
    images, keys, augmentation = make_images(3, 20, size, channels), make_keys(3), PhotoAugmentation(padding)
    assert_equals_definition(augmentation, images, keys)


def test_strong_jitter_never_blends_with_a_negative_factor() -> None:
    images, keys = make_images(2, 20, 16, 3), make_keys(2)
    augmentation = PhotoAugmentation(2, brightness=1.5, contrast=2.0, saturation=3.0)
    drawn = augmentation.parameters(keys, 500)
    assert all(getattr(drawn, operation).min() >= 0 for operation in OPERATIONS)
    assert_equals_definition(augmentation, images, keys)


@pytest.mark.parametrize(("size", "padding", "channels"), SHAPES)
def test_crop_and_flip_alone_move_pixels_without_changing_them(size: int, padding: int, channels: int) -> None:
    images, keys = make_images(3, 20, size, channels), make_keys(3)
    augmentation = PhotoAugmentation(padding, brightness=0, contrast=0, saturation=0)
    expected = references(by_pil, images, augmentation, keys)
    np.testing.assert_array_equal(np.rint(levels(augmentation(images, keys))), expected)
    np.testing.assert_allclose(levels(augmentation(images, keys)), expected, atol=1e-3)


def test_images_need_not_be_square() -> None:
    images, keys, augmentation = make_images(2, 10, 24, 3)[..., :17, :], make_keys(2), PhotoAugmentation(3)
    assert_equals_definition(augmentation, images, keys)


def test_padding_is_black() -> None:
    augmentation = PhotoAugmentation(3, brightness=0, contrast=0, saturation=0, flip=False)
    keys = make_keys(1)
    parameters = augmentation.parameters(keys, 200)
    augmented = augmentation(torch.full((1, 200, 8, 8, 3), 255, dtype=torch.uint8), keys)[0, :, 0]
    offsets = np.arange(8)
    inside_rows = (parameters.top[0][:, None] + offsets >= 3) & (parameters.top[0][:, None] + offsets < 11)
    inside_columns = (parameters.left[0][:, None] + offsets >= 3) & (parameters.left[0][:, None] + offsets < 11)
    inside = inside_rows[:, :, None] & inside_columns[:, None, :]
    np.testing.assert_array_equal(augmented.numpy() == 0, ~inside)


def test_parameters_have_the_distributions_of_torchvision() -> None:
    augmentation = PhotoAugmentation(4, brightness=0.4, contrast=0.3, saturation=0.2)
    drawn = augmentation.parameters(make_keys(400), 50)
    for name, strength in (("brightness", 0.4), ("contrast", 0.3), ("saturation", 0.2)):
        uniform = stats.uniform(1 - strength, 2 * strength).cdf
        assert stats.kstest(getattr(drawn, name).ravel(), uniform).pvalue > 1e-3, name
    for name, outcomes in (("top", 9), ("left", 9), ("order", 6), ("flip", 2)):
        counts = np.bincount(getattr(drawn, name).ravel().astype(np.int64), minlength=outcomes)
        assert len(counts) == outcomes
        assert stats.chisquare(counts).pvalue > 1e-3, name


def test_parameters_are_independent_of_one_another_and_between_neighbours() -> None:
    drawn = PhotoAugmentation(8).parameters(make_keys(400), 50)
    columns = [np.asarray(values, np.float64) for values in vars(drawn).values()]
    here = [column[:, :-1].ravel() for column in columns]
    next_image = [column[:, 1:].ravel() for column in columns]
    correlation = np.corrcoef(here + next_image) - np.eye(14)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(here[0]))


def test_flip_can_be_switched_off() -> None:
    assert not PhotoAugmentation(4, flip=False).parameters(make_keys(10), 50).flip.any()


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (19, 3), (28, 1), (5, 3), (48, 3)])
def test_an_image_is_augmented_alike_to_the_bit_whatever_shares_its_batch(
    size: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, keys, augmentation = make_images(6, 7, size, channels), make_keys(6), PhotoAugmentation(4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = augmentation(images, keys)
        torch.set_num_threads(1)
        one_by_one = [augmentation(images[task : task + 1], keys[task : task + 1]) for task in range(6)]
        unevenly = [augmentation(images[part], keys[part]) for part in (slice(0, 4), slice(4, 6))]
        first_images = augmentation(images[:, :1], keys)
        for images_at_once in (1, 5):
            monkeypatch.setattr(augmentation_module, "_PIXELS_AT_ONCE", images_at_once * size * size)
            assert torch.equal(together, augmentation(images, keys))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, torch.cat(one_by_one))
    assert torch.equal(together, torch.cat(unevenly))
    assert torch.equal(together[:, :1], first_images)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalised_at_once_an_image_is_the_same_to_the_bit_as_normalised_afterwards(channels: int) -> None:
    images, keys, augmentation = make_images(3, 5, 19, channels), make_keys(3), PhotoAugmentation(4)
    normalization = Normalization((0.5, 0.4, 0.3)[:channels], (0.2, 0.25, 0.3)[:channels])
    at_once = augmentation(images, keys, normalization=normalization)
    assert torch.equal(at_once, normalize(augmentation(images, keys), normalization))
    with pytest.raises(ConfigError, match=rf"{channels} channels, but the normalization is for 2"):
        augmentation(images, keys, normalization=Normalization((0.5,) * 2, (0.2,) * 2))


def test_keys_and_positions_decide_and_the_input_is_left_alone() -> None:
    augmentation, keys = PhotoAugmentation(4), make_keys(2)
    images = make_images(1, 1, 32, 3).expand(2, 8, -1, -1, -1).contiguous()
    before = images.clone()
    augmented = augmentation(images, keys)
    assert torch.equal(images, before)
    assert torch.equal(augmented, augmentation(images, keys))
    assert len({image.numpy().tobytes() for image in augmented.flatten(0, 1)}) == 16


def test_parameters_stay_what_they_were_when_runs_were_recorded() -> None:
    drawn = PhotoAugmentation(4).parameters(np.asarray([1, 2], np.uint64), 2)
    assert drawn.top.tolist() == [[6, 6], [4, 2]]
    assert drawn.order.tolist() == [[5, 0], [4, 5]]
    np.testing.assert_allclose(
        drawn.contrast, [[0.8052476826970126, 1.3682337559576783], [0.626704014539646, 1.3268187079140135]], rtol=1e-12
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_results_are_float_and_channels_last(channels: int) -> None:
    normalization = Normalization((0.5,) * channels, (0.2,) * channels)
    images = make_images(2, 5, 12, channels)
    augmented = PhotoAugmentation(2)(images, make_keys(2))
    for result in (augmented, to_float(images), normalize(images, normalization), normalize(augmented, normalization)):
        assert result.shape == (2, 5, channels, 12, 12)
        assert result.dtype == torch.float32
        assert result.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert augmented.min() >= 0
    assert augmented.max() <= 1


@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_normalize_takes_stored_and_float_images_in_any_layout(leading: tuple[int, ...]) -> None:
    normalization = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    images = torch.randint(0, 256, (*leading, 9, 7, 3), dtype=torch.uint8)
    expected = np.moveaxis((images.numpy() / 255 - normalization.mean) / normalization.std, -1, -3)
    for given in (images, to_float(images), to_float(images).contiguous(), to_float(images).double()):
        result = normalize(given, normalization)
        assert result.dtype == (torch.float64 if given.dtype == torch.float64 else torch.float32)
        np.testing.assert_allclose(result.numpy(), expected, atol=2e-6)


def test_normalize_leaves_its_input_alone() -> None:
    images = torch.rand(2, 3, 5, 5)
    before = images.clone()
    normalize(images, Normalization((0.5,) * 3, (0.2,) * 3))
    assert torch.equal(images, before)


def test_the_published_paddings() -> None:
    photo = Normalization((0.5,) * 3, (0.2,) * 3)
    assert augmentation_for(photo, 32) == PhotoAugmentation(4)
    assert augmentation_for(photo, 84) == PhotoAugmentation(8)
    assert augmentation_for(photo, 224) == PhotoAugmentation(21)
    assert augmentation_for(Normalization((0.5,), (0.2,), "none"), 28) is None


@pytest.mark.parametrize("name", ["padding", "brightness", "contrast", "saturation"])
def test_negative_options_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is -1, but must not be negative"):
        PhotoAugmentation(**{"padding": 4, name: -1})


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="padding 9 exceeds the images of 8x8 pixels"):
        PhotoAugmentation(9)(make_images(1, 2, 8, 3), make_keys(1))
    with pytest.raises(ConfigError, match="1 or 3 channels, not 4"):
        PhotoAugmentation(2)(make_images(1, 2, 8, 4), make_keys(1))
    with pytest.raises(ConfigError, match=r"3 tasks need keys of shape \(3,\), not \(0,\)"):
        PhotoAugmentation(2)(make_images(3, 2, 8, 3), make_keys(0))
    with pytest.raises(ConfigError, match="1 channels, but the normalization is for 3"):
        normalize(make_images(1, 2, 8, 1), Normalization((0.5,) * 3, (0.2,) * 3))
