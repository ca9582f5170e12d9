"""HED with random weights against controlnet_aux's detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime

REGISTRY = discover()


@pytest.mark.parametrize(
    ("id_", "options"), [("hed", {}), ("hed_safe", {"safe": True}), ("scribble_hed", {"scribble": True})]
)
def test_the_map_is_that_of_controlnet_aux(id_: str, options: dict[str, bool], folder: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    entry = REGISTRY.get(id_)
    runtime = random_runtime(entry.spec, folder)
    reference = controlnet_aux("hed").HEDdetector.from_pretrained(str(folder / "hed"))
    expected = np.array(reference(image, detect_resolution=128, image_resolution=128, **options))
    found = entry.load(runtime)(image, resolution=128)
    assert expected.std() > 1, "a constant map would prove nothing"
    different = np.abs(found.astype(int) - expected.astype(int))
    if id_ == "hed":
        assert different.max() <= 1
    else:  # steps and crests jump where a value lies on their edge: a bit of float32 decides
        assert (different > 1).mean() < 0.002


@pytest.mark.parametrize(("soft", "strokes"), [("hed", "scribble_hed"), ("pidinet", "pidinet_scribble")])
def test_strokes_are_drawn_after_the_padding_is_cut_off(soft: str, strokes: str, folder: Path) -> None:
    """As sd-webui-controlnet draws them: blurs mirror at the picture's edge and do not see what lies beyond it."""
    noise = np.random.default_rng(1).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.5)
    runtime = random_runtime(REGISTRY.get(soft).spec, folder)
    edges = REGISTRY.get(soft).load(runtime)(image, resolution=100)[:, :, 0]
    blurred = cv2.GaussianBlur(controlnet_aux("util").nms(edges, 127, 3.0), (0, 0), 3.0)
    expected = np.where(blurred > 4, 255, 0)
    assert edges.shape == (100, 150)
    assert expected.std() > 1, "a constant map would prove nothing"
    assert np.array_equal(REGISTRY.get(strokes).load(runtime)(image, resolution=100)[:, :, 0], expected)
