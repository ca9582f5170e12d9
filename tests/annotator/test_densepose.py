"""DensePose around a small TorchScript file that answers what it was made with."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from annotator.sd_controlnet.entries.densepose import WEIGHTS
from annotator.sd_controlnet.entries.densepose.detector import DensePose, colours
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Runtime

# of the background and the parts 1, 12 and 24, as sd-webui-controlnet draws them
VIRIDIS = {0: "440154", 1: "471063", 12: "21908d", 24: "fde725"}
PARULA = {0: "000000", 1: "253ca3", 12: "37b99f", 24: "f9fb0e"}


class Answer(nn.Module):
    """Two people whose boxes overlap; the places within parts are random, since they must not matter."""

    def __init__(self, boxes: Tensor, coarse: Tensor, fine: Tensor) -> None:
        super().__init__()
        self.boxes = nn.Parameter(boxes)
        self.coarse = nn.Parameter(coarse)
        self.fine = nn.Parameter(fine)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        assert image.dim() == 3
        assert image.dtype == torch.uint8
        return self.boxes, self.coarse, self.fine, self.fine, self.fine


@pytest.fixture(autouse=True)
def with_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file made here calls none of torchvision's operators."""
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))


def saved(module: nn.Module, folder: Path) -> Runtime:
    """A runtime whose user trusts the file."""
    file = folder / WEIGHTS.folder / WEIGHTS.name
    file.parent.mkdir(exist_ok=True)
    torch.jit.script(module).save(str(file))
    trusted = frozenset((hashlib.sha256(file.read_bytes()).hexdigest(),))
    return Runtime(weight_folders=(folder,), trusted=lambda: trusted)


def smooth(channels: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(2, channels, 28, 28)).astype(np.float32)
    return np.stack([[cv2.GaussianBlur(plane, (0, 0), 3) for plane in person] for person in noise])


@pytest.mark.parametrize("viridis", [True, False])
def test_parts_are_pasted_in_their_boxes(viridis: bool, tmp_path: Path) -> None:
    boxes = np.array([[10.7, 20.2, 90.4, 120.9], [60.0, 5.5, 126.9, 100.0]], np.float32)
    coarse, fine = smooth(2, 0), smooth(25, 1)
    runtime = saved(Answer(*map(torch.from_numpy, (boxes, coarse, fine))), tmp_path)
    image = np.random.default_rng(2).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    found = DensePose(runtime, WEIGHTS, viridis)(image, resolution=128)

    labels = np.zeros((128, 192), np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes):
        size = (int(right - left), int(bottom - top))
        grown = [[cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in maps[number]]
                 for maps in (coarse, fine)]  # fmt: skip
        part = np.argmax(grown[1], axis=0) * (np.argmax(grown[0], axis=0) > 0)
        place = labels[int(top) : int(top) + size[1], int(left) : int(left) + size[0]]
        place[part > 0] = part[part > 0]
    steps = (labels.astype(np.float32) * 255.0 / 24).astype(np.uint8)
    expected = cv2.applyColorMap(steps, cv2.COLORMAP_VIRIDIS if viridis else cv2.COLORMAP_PARULA)[:, :, ::-1].copy()
    expected[labels == 0] = 0
    if viridis:
        for channel, value in enumerate((68, 1, 84)):
            expected[..., channel][expected[..., channel] == 0] = value
    assert len(np.unique(labels)) > 10
    assert (found != expected).any(axis=2).mean() < 0.001, "but for ties of two parts"


@pytest.mark.parametrize(("viridis", "expected"), [(True, VIRIDIS), (False, PARULA)])
def test_colours_are_those_of_the_peer(viridis: bool, expected: dict[int, str]) -> None:
    scale = colours(viridis)
    assert {part: scale[part].tobytes().hex() for part in expected} == expected


def test_a_box_beyond_the_border_is_cut_off(tmp_path: Path) -> None:
    boxes = np.array([[-20.0, -10.0, 30.0, 40.0], [50.0, 50.0, 90.0, 80.0]], np.float32)
    coarse = np.zeros((2, 2, 4, 4), np.float32)
    coarse[:, 1] = 1
    fine = np.zeros((2, 25, 4, 4), np.float32)
    fine[:, 5] = 1
    runtime = saved(Answer(*map(torch.from_numpy, (boxes, coarse, fine))), tmp_path)
    found = DensePose(runtime, WEIGHTS, False)(np.zeros((64, 64, 3), np.uint8), resolution=64)
    expected = np.zeros((64, 64, 3), np.uint8)
    expected[:40, :30] = expected[50:, 50:] = colours(False)[5]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    runtime = saved(Answer(torch.zeros(0, 4), torch.zeros(0, 2, 4, 4), torch.zeros(0, 25, 4, 4)), tmp_path)
    file = tmp_path / WEIGHTS.folder / WEIGHTS.name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(AnnotatorError, match="damaged"):
        DensePose(runtime, WEIGHTS, True)(np.zeros((64, 64, 3), np.uint8), resolution=64)


def test_it_says_what_it_needs() -> None:
    registry = discover()
    if "densepose" not in registry:
        assert "torchvision" in registry.disabled["densepose"].reason
