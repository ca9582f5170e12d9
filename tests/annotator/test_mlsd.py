"""M-LSD with random weights against controlnet_aux's detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.mlsd.detector import segments
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime

REGISTRY = discover()
ENTRY = REGISTRY.get("mlsd")


@pytest.mark.parametrize("thresholds", [(0.1, 0.1), (0.5, 3.0), (0.6, 12.0)])
def test_the_map_is_that_of_controlnet_aux(thresholds: tuple[float, float], tmp_path: Path) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 3.0)
    runtime = random_runtime(ENTRY.spec, tmp_path)
    reference = controlnet_aux("mlsd").MLSDdetector.from_pretrained(str(tmp_path / "mlsd"))
    value, distance = thresholds
    expected = np.array(reference(image, value, distance, detect_resolution=128, image_resolution=128))
    found = ENTRY.load(runtime)(image, resolution=128, params=thresholds)
    assert 0.001 < (expected == 255).mean() < 0.9, "a constant map would prove nothing"
    assert np.array_equal(found, expected)


def test_a_segment_of_a_map_made_by_hand() -> None:
    """Its centre at x 10, y 5 of the half-size map, ends 4 to the left and 6 to the right."""
    found = torch.full((9, 16, 32), -20.0)
    found[0, 5, 10] = 3.0
    found[1:5, 5, 10] = torch.tensor([-4.0, 0.0, 6.0, 0.5])
    assert segments(found, 0.1, 0.1) == [[12, 10, 32, 11]]
    assert segments(found, 0.1, 11.0) == []
    assert segments(found, 0.96, 0.1) == []


def test_nothing_found_is_black(tmp_path: Path) -> None:
    runtime = random_runtime(ENTRY.spec, tmp_path)
    found = ENTRY.load(runtime)(np.zeros((64, 64, 3), np.uint8), resolution=64, params=(2.0, 20.0))
    assert not found.any()
