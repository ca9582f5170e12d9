"""facexlib's entry with random weights, against the lines of sd-webui-controlnet on facexlib's own helper."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.face_features import SPEC, load
from annotator.sd_controlnet.entries.face_features.detector import aligned
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Runtime
from tests.device.pretend import pretended

from .makers import random_runtime
from .torchvision_stand_in import normalize, stand_in

if importlib.util.find_spec("facexlib") is None:
    pytest.skip("facexlib is not installed", allow_module_level=True)


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """facexlib, imported with what stands in for torchvision, and forgotten afterwards."""
    stand_in(monkeypatch)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "facexlib"]:
        del sys.modules[name]


def picture(height: int = 128, width: int = 170) -> np.ndarray:
    noise = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5.0).astype(np.float32)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def networks(folder: Path) -> tuple[Any, Any]:
    """facexlib's own, filled by themselves."""
    finder = importlib.import_module("facexlib.detection.retinaface").RetinaFace(device="cpu")
    weights = torch.load(folder / "facexlib/detection_Resnet50_Final.pth", weights_only=True)
    finder.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    parts = importlib.import_module("facexlib.parsing.bisenet").BiSeNet(num_class=19)
    parts.load_state_dict(torch.load(folder / "facexlib/parsing_bisenet.pth", weights_only=True))
    return finder.eval().requires_grad_(False), parts.eval().requires_grad_(False)


def peers(image: np.ndarray, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, int]:
    """The map, and how many faces there were to choose from."""
    finder, parts = networks(folder)
    helpers = importlib.import_module("facexlib.utils.face_restoration_helper")
    monkeypatch.setattr(helpers, "init_detection_model", lambda *_given, **_named: finder)
    monkeypatch.setattr(helpers, "init_parsing_model", lambda *_given, **_named: parts)
    helper = helpers.FaceRestoreHelper(1, face_size=512, crop_ratio=(1, 1), device="cpu")
    helper.read_image(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    count = len(finder.detect_faces(helper.input_img, 0.97))
    helper.get_face_landmarks_5(only_center_face=True)
    helper.align_warp_face()
    face = cv2.cvtColor(helper.cropped_faces[0], cv2.COLOR_BGR2RGB)
    pixels = torch.from_numpy(face).float().permute(2, 0, 1)[None] / 255.0
    with torch.no_grad():
        classes = parts(normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))[0].argmax(dim=1, keepdim=True)
    beyond = sum(classes == label for label in [0, 16, 18, 7, 8, 9, 14, 15]).bool()
    grey = 0.299 * pixels[:, 0:1] + 0.587 * pixels[:, 1:2] + 0.114 * pixels[:, 2:3]
    found = torch.where(beyond, torch.ones_like(pixels), grey.repeat(1, 3, 1, 1))
    return (found[0].permute(1, 2, 0) * 255.0).to(torch.uint8).numpy(), count


def test_the_map_is_that_of_sd_webui_controlnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = random_runtime(SPEC, folder)
    image = picture()
    padded = np.pad(image, ((0, 0), (0, -image.shape[1] % 64), (0, 0)), mode="edge")
    expected, faces = peers(padded, folder, monkeypatch)
    found = load(runtime)(image, resolution=128)
    assert isinstance(found, np.ndarray)
    assert faces > 1, "the choice would not be compared"
    assert expected.std() > 5, "a constant map would prove nothing"
    assert found.shape == (512, 512, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_the_face_next_to_the_middle_is_taken() -> None:
    image = picture(200, 200)
    points = np.array([[80, 90], [120, 90], [100, 110], [85, 130], [115, 130]], np.float32)
    near = np.concatenate([[70, 70, 130, 140, 0.98], points.ravel()])
    far = np.concatenate([[0, 0, 190, 60, 0.99], points.ravel() + 50])
    face = aligned(image, np.stack([far, near]).astype(np.float32))
    assert face.shape == (512, 512, 3)
    assert np.array_equal(face, aligned(image, near[None].astype(np.float32)))
    assert not np.array_equal(face, aligned(image, far[None].astype(np.float32)))


def test_a_picture_without_a_face_is_refused(folder: Path) -> None:
    runtime = random_runtime(SPEC, folder)
    finder, _ = networks(folder)
    for head in finder.ClassHead:
        torch.nn.init.zeros_(head.conv1x1.weight)
        torch.nn.init.zeros_(head.conv1x1.bias)
    runtime.network("facexlib/finder", lambda: finder)
    with pytest.raises(AnnotatorError, match="no face was found"):
        load(runtime)(picture(), resolution=64)


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    random_runtime(SPEC, folder)
    for weight in SPEC.weights:
        file = tmp_path / weight.folder / weight.name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes((folder / weight.folder / weight.name).read_bytes()[:5000])
    with pytest.raises(AnnotatorError, match="damaged"):
        load(Runtime(weight_folders=(tmp_path,)))(picture(), resolution=64)


def test_without_its_libraries_the_entry_says_so() -> None:
    registry = discover()
    assert "facexlib" in registry or "which is not installed" in registry.disabled["facexlib"].reason


def test_both_networks_work_on_a_card_and_leave_it(folder: Path) -> None:
    """What facexlib puts beside its parameters goes along: means, scales, and where it makes its own tensors."""
    runtime = random_runtime(SPEC, folder)
    expected = load(runtime)(picture(), resolution=64)
    with pretended("mps") as card:
        found = load(replace(runtime, device="mps"))(picture(), resolution=64)
        assert card.memory.peak
        runtime.networks.put_away()
        gc.collect()
        assert not card.memory.live
    assert np.array_equal(found, expected)
