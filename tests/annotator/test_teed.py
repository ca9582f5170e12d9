"""TEED with random weights against controlnet_aux's detector, and Anyline against its formula written out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from annotator.sd_controlnet.entries.teed.detector import screened, without_specks
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime

REGISTRY = discover()


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def edges(image: np.ndarray, folder: Path, name: str, steps: int) -> np.ndarray:
    reference = controlnet_aux("teed").TEEDdetector.from_pretrained(str(folder / "TEED"), name)
    found = reference(image, detect_resolution=min(image.shape[:2]), safe_steps=steps, output_type="np")
    assert found.std() > 1, "a constant map would prove nothing"
    return found


@pytest.mark.parametrize("steps", [0, 2, 7])
def test_the_map_is_that_of_controlnet_aux(steps: int, tmp_path: Path) -> None:
    image, entry = picture(128, 192), REGISTRY.get("softedge_teed")
    runtime = random_runtime(entry.spec, tmp_path)
    expected = edges(image, tmp_path, "7_model.pth", steps)
    different = np.abs(entry.load(runtime)(image, resolution=128, params=(steps,)).astype(int) - expected.astype(int))
    if steps == 0:
        assert different.max() <= 1
    else:  # a step is as high as 255 / steps: a bit of float32 decides on its edge
        assert (different > 1).mean() < 0.002


def fine_lines(image: np.ndarray) -> np.ndarray:
    """Anyline's lines and its removal of objects, with SciPy's labels of the map in three channels."""
    pixels = image.astype(np.float32)
    lines = np.min(cv2.GaussianBlur(pixels, (0, 0), 2.0) - pixels, axis=2).clip(0, 255)
    lines = (lines / max(16, np.median(lines[lines > 3])) * 127).clip(0, 255).astype(np.uint8)
    three = np.repeat(lines[:, :, None], 3, axis=2)
    labels, count = ndimage.label(three > 0)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(count + 1))
    return np.where(sizes[labels] >= 36, three, 0)


def test_anyline_is_its_formula_in_numbers_from_0_to_1(tmp_path: Path) -> None:
    image, entry = picture(128, 192), REGISTRY.get("softedge_anyline")
    runtime = random_runtime(entry.spec, tmp_path)
    base, top = edges(image, tmp_path, "MTEED.pth", 0) / 255.0, fine_lines(image) / 255.0
    assert (top > 0).mean() > 0.02
    expected = np.where(top > 0, 1.0 - (1.0 - top) * (1.0 - base), base) * 255.0
    found = entry.load(runtime)(image, resolution=128, params=(0.0,))
    assert np.abs(found - expected).max() <= 1.5  # one from the edges, a half from rounding
    assert np.abs(found - base * 255.0).max() > 20


def test_specks_are_smaller_than_a_dozen_pixels() -> None:
    lines = np.zeros((20, 40), np.uint8)
    lines[2, 2:13] = 9  # 11 pixels
    lines[5, 2:14] = 9  # 12
    lines[8:20:2, 20:26:2] = lines[9:20:2, 21:26:2] = 9  # 34 pixels that touch only at corners
    expected = np.zeros_like(lines)
    expected[5, 2:14] = 9
    assert np.array_equal(without_specks(lines), expected)


def test_a_screen_keeps_what_has_nothing_over_it() -> None:
    every = np.arange(256, dtype=np.uint8)
    base, top = np.meshgrid(every, every)
    found = screened(base, top)
    assert np.array_equal(found[0], every)
    assert np.array_equal(found[:, 0], every)
    exact = 255.0 - (255.0 - base.astype(float)) * (255.0 - top.astype(float)) / 255.0
    assert np.abs(found - exact).max() <= 0.5
