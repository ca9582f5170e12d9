"""PiDiNet with random weights against controlnet_aux's detector, whose network takes differences at every call."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.pidinet.detector import folded
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError

from .makers import random_runtime

REGISTRY = discover()


@pytest.mark.parametrize(
    ("id_", "options"),
    [
        ("pidinet", {}),
        ("pidinet_safe", {"safe": True}),
        ("pidinet_scribble", {"scribble": True}),
        ("pidinet_sketch", {"apply_filter": True}),
    ],
)
def test_the_map_is_that_of_controlnet_aux(id_: str, options: dict[str, bool], tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 1.5)
    entry = REGISTRY.get(id_)
    runtime = random_runtime(entry.spec, tmp_path)
    reference = controlnet_aux("pidi").PidiNetDetector.from_pretrained(str(tmp_path / "pidinet"))
    expected = np.array(reference(image, detect_resolution=128, image_resolution=128, **options))
    found = entry.load(runtime)(image, resolution=128)
    assert expected.std() > 1, "a constant map would prove nothing"
    different = np.abs(found.astype(int) - expected.astype(int))
    if id_ == "pidinet":
        assert different.max() <= 1
    else:  # steps, crests and halves jump where a value lies on their edge: a bit of float32 decides
        assert (different > 1).mean() < 0.002


def test_folded_weights_are_those_of_plain_convolutions() -> None:
    torch.manual_seed(0)
    model = controlnet_aux("pidi").model
    network = model.pidinet().eval()
    plain = model.PiDiNet(60, ["cd", "ad", "rd", "cv"] * 4, dil=24, sa=True, convert=True).eval()
    plain.load_state_dict(folded(network.state_dict()))
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = network(pixels), plain(pixels)
    for theirs, ours in zip(expected, found, strict=True):
        assert theirs.std() > 1e-4
        assert torch.allclose(theirs, ours, atol=1e-6)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pidinet").mkdir()
    weights = {"init_block.weight": torch.zeros(60, 3), "block1_2.conv1.weight": torch.zeros(60, 1, 3, 3)}
    torch.save(weights, tmp_path / "pidinet" / "table5_pidinet.pth")
    entry = REGISTRY.get("pidinet")
    with pytest.raises(AnnotatorError, match="not those of this preprocessor"):
        entry.load(random_runtime(entry.spec, tmp_path))(np.zeros((64, 64, 3), np.uint8), resolution=64)
