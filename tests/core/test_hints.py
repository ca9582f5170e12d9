"""Hints: from an 8-bit map to what a control model was trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_controlnet.core.hints import hint_from_map
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.resize import fit_map

JUST, CROP, FILL = ResizeMode.just_resize, ResizeMode.crop_and_resize, ResizeMode.resize_and_fill


def random_map(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_values_are_divided_by_255_and_channels_come_first() -> None:
    image = random_map(8, 16, 3)
    hint = hint_from_map(image, 16, 8, CROP)
    assert hint.image.shape == (1, 3, 8, 16)
    assert hint.image.dtype == torch.float32
    assert hint.mask is None
    assert hint.size == (16, 8)
    for y, x, c in ((0, 0, 0), (7, 15, 2), (3, 9, 1)):
        assert hint.image[0, c, y, x].item() == np.float32(image[y, x, c]) / np.float32(255)
    assert np.array_equal(hint.display, image)


@pytest.mark.parametrize("mode", ResizeMode)
def test_a_hint_is_the_fitted_map(mode: ResizeMode) -> None:
    image = random_map(21, 34, 3)
    hint = hint_from_map(image, 64, 48, mode)
    fitted = fit_map(image, 64, 48, mode)
    assert np.array_equal((hint.image[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), fitted)
    assert np.array_equal(hint.display, fitted)


def test_masked_pixels_are_minus_one() -> None:
    image = random_map(8, 8, 4)
    image[:, :, 3] = 0
    image[2:5, 1:4, 3] = 255
    image[0, 0, 3], image[0, 1, 3] = 127, 128
    hint = hint_from_map(image, 8, 8, JUST)
    masked = image[:, :, 3] > 127
    assert hint.mask is not None
    assert hint.mask.shape == (1, 1, 8, 8)
    assert np.array_equal(hint.mask[0, 0].numpy(), masked.astype(np.float32))
    for channel in range(3):
        expected = np.where(masked, np.float32(-1), image[:, :, channel] / np.float32(255))
        assert np.array_equal(hint.image[0, channel].numpy(), expected)


def test_masked_pixels_are_shown_half_transparent() -> None:
    image = random_map(4, 4, 4)
    image[:, :, 3] = [[0, 255, 255, 0]] * 4
    hint = hint_from_map(image, 4, 4, JUST)
    assert hint.display.dtype == np.uint8
    assert np.array_equal(hint.display[:, :, :3], image[:, :, :3])
    assert hint.display[:, :, 3].tolist() == [[255, 128, 128, 255]] * 4


def test_padding_of_an_inpaint_hint_is_masked() -> None:
    image = random_map(4, 8, 4)
    image[:, :, 3] = 0
    hint = hint_from_map(image, 8, 8, FILL)
    assert hint.mask is not None
    assert hint.mask[0, 0, :, 0].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
    assert (hint.image[0, :, :2] == -1).all()
    assert (hint.image[0, :, 2:6] >= 0).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(1, 1), (16, 8)])
def test_the_map_is_not_changed_and_not_shared(channels: int, size: tuple[int, int]) -> None:
    image = random_map(*size, channels)
    before = image.copy()
    hint = hint_from_map(image, size[1], size[0], JUST)
    hint.image.zero_()
    assert np.array_equal(image, before)
    assert np.array_equal(hint.display[:, :, :3], before[:, :, :3])
