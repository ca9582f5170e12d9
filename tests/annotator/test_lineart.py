"""Line drawings with random weights against controlnet_aux's detectors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime

REGISTRY = discover()


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


@pytest.mark.parametrize(("id_", "coarse"), [("lineart", False), ("lineart_coarse", True)])
def test_the_map_is_that_of_controlnet_aux(id_: str, coarse: bool, folder: Path) -> None:
    image = picture(128, 192)
    for name in ("lineart", "lineart_coarse"):  # the reference wants both files
        runtime = random_runtime(REGISTRY.get(name).spec, folder)
    reference = controlnet_aux("lineart").LineartDetector.from_pretrained(str(folder / "lineart"))
    expected = np.array(reference(image, coarse=coarse, detect_resolution=128, image_resolution=128))
    found = REGISTRY.get(id_).load(runtime)(image, resolution=128)
    assert expected.std() > 1, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_the_anime_map_is_that_of_controlnet_aux(folder: Path) -> None:
    image, entry = picture(128, 192), REGISTRY.get("lineart_anime")
    runtime = random_runtime(entry.spec, folder)
    reference = controlnet_aux("lineart_anime").LineartAnimeDetector.from_pretrained(str(folder / "lineart_anime"))
    expected = np.array(reference(image, detect_resolution=128, image_resolution=128))
    found = entry.load(runtime)(image, resolution=128)
    assert expected.std() > 1, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
