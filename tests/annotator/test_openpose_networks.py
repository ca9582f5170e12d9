"""OpenPose's networks with random weights, read from files by us and by controlnet_aux."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.openpose import BODY, FACE, HAND, parts
from annotator.sd_controlnet.entries.openpose.detector import OpenPose
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.spec import Runtime

from .makers import MAKERS

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 72, 3), dtype=np.uint8)
SHOWN = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None].float() / 256 - 0.5


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """controlnet_aux's modules by name, without the packages of which they use nothing here."""
    for name in ("torchvision", "torchvision.transforms", "skimage", "skimage.measure"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    transforms, measure = sys.modules["torchvision.transforms"], sys.modules["skimage.measure"]
    for module, names in ((transforms, ("ToTensor", "ToPILImage")), (measure, ("label",))):
        for name in names:
            monkeypatch.setattr(module, name, object, raising=False)
    controlnet_aux("open_pose.util")
    return lambda name: controlnet_aux(f"open_pose.{name}")


@pytest.fixture
def ours(tmp_path: Path) -> OpenPose:
    (tmp_path / "openpose").mkdir()
    return OpenPose(Runtime(weight_folders=(tmp_path,)), BODY, HAND, FACE, draws_body=True)


def written(tmp_path: Path, name: str) -> str:
    file = tmp_path / "openpose" / name
    MAKERS[name](file)
    return str(file)


def test_body(peer: Any, ours: OpenPose, tmp_path: Path) -> None:
    theirs = peer("body").Body(written(tmp_path, BODY.name)).model
    with torch.no_grad():
        expected = [map_[0].numpy() for map_ in theirs(SHOWN)]
    found = ours._body_maps(IMAGE)
    assert [map_.shape for map_ in found] == [(38, 8, 9), (19, 8, 9)]
    for map_, other in zip(found, expected, strict=True):
        assert other.std() > 0
        np.testing.assert_allclose(map_, other, rtol=1e-4, atol=1e-7)


def test_hand(peer: Any, ours: OpenPose, tmp_path: Path) -> None:
    theirs = peer("hand").Hand(written(tmp_path, HAND.name)).model
    with torch.no_grad():
        expected = theirs(SHOWN)[0].numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(ours._hand_maps(IMAGE), expected, rtol=1e-4, atol=1e-7)


def test_face(peer: Any, ours: OpenPose, tmp_path: Path) -> None:
    """The file is written from controlnet_aux's own network: ours must take its names, and find the same points."""
    module = peer("face")
    torch.manual_seed(0)
    network = module.FaceNet()
    with torch.no_grad():
        network.Mconv7_stage6.bias.copy_(torch.linspace(-0.1, 0.2, 71))  # some points warm enough, some not
        network.Mconv7_stage6.weight.mul_(1e3)
    file = tmp_path / "openpose" / FACE.name
    torch.save(network.state_dict(), file)
    theirs = module.Face(str(file))
    with torch.no_grad():
        maps = network(SHOWN)[-1][0].numpy()
    assert maps.std() > 0
    np.testing.assert_allclose(ours._face_maps(IMAGE), maps, rtol=1e-4, atol=1e-6)

    square = IMAGE[:48, :48]
    expected = [tuple(map(int, point)) for point in theirs.compute_peaks_from_heatmaps(theirs(square))]
    assert 10 < len(expected) < 71
    assert parts.find_face(square, ours._face_maps) == expected
