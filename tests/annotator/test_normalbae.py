"""NormalBae with random weights against controlnet_aux's network and the lines of its detector."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.normalbae.detector import _geffnet
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime
from .makers.depth import normal_bae

ENTRY = discover().get("normal_bae")


def test_the_map_is_that_of_controlnet_aux(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 100, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 2.0)
    padded = np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge").astype(np.float32) / 255.0
    seen = (padded - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    with torch.no_grad():
        normal = normal_bae()(torch.from_numpy(seen.transpose(2, 0, 1)[None]))[0][-1][0, :3].numpy()
    expected = (((normal + 1) * 0.5).clip(0, 1).transpose(1, 2, 0) * 255.0).clip(0, 255).astype(np.uint8)[:, :100]
    assert expected.std() > 5, "a constant map would prove nothing"
    found = ENTRY.load(random_runtime(ENTRY.spec, folder))(image, resolution=64)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert capsys.readouterr() == ("", "")


def test_the_network_is_built_in_a_process_in_which_nobody_has_imported_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Modules of controlnet_aux's copy of geffnet import one another by that name, as if it was installed."""
    for name in [name for name in sys.modules if "geffnet" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "efficientnet_repo" not in path])
    assert _geffnet("gen_efficientnet").tf_efficientnet_b5_ap
