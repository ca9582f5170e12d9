"""Faces with a finder that knows them beforehand: InsightFace and its networks are not among the tests' packages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from annotator.sd_controlnet.entries.faces import ANTELOPE, BUFFALO, SPECS, load
from annotator.sd_controlnet.entries.faces.detector import FaceIdPlus, Finder, draw
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Runtime

POINTS = np.array([[70.2, 60.7], [120.9, 58.1], [97.5, 85.0], [78.0, 110.3], [117.4, 108.8]], np.float32)
BOXES = np.array([[10, 10, 40, 40, 0.9], [50, 30, 140, 130, 0.8], [5, 90, 45, 120, 0.99]], np.float32)


class FakeDetection:
    """It finds nothing in squares larger than `largest`."""

    def __init__(self, boxes: np.ndarray, largest: int = 640) -> None:
        self.boxes = boxes
        self.largest = largest
        self.seen = np.zeros(())
        self.asked: list[int] = []

    def detect(
        self, image: np.ndarray, input_size: tuple[int, int], max_num: int, metric: str
    ) -> tuple[np.ndarray, np.ndarray]:
        self.seen = image
        self.asked.append(input_size[0])
        boxes = self.boxes if input_size[0] <= self.largest else self.boxes[:0]
        points = np.zeros((len(boxes), 5, 2), np.float32)
        points[1:2] = POINTS
        return boxes, points


class FakeRecognition:
    """The embedding tells which face was asked for: its box comes first."""

    def get(self, _image: np.ndarray, face: Any) -> np.ndarray:
        return np.concatenate([face.bbox, np.full(508, face.det_score)]).astype(np.float32)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    common = ModuleType("insightface.app.common")
    monkeypatch.setattr(common, "Face", SimpleNamespace, raising=False)
    for name, module in (("insightface", None), ("insightface.app", None), ("insightface.app.common", common)):
        monkeypatch.setitem(sys.modules, name, module or ModuleType(name))


def runtime(boxes: np.ndarray = BOXES) -> tuple[Runtime, FakeDetection]:
    lent, detection = Runtime(), FakeDetection(boxes)
    for weights in (BUFFALO, ANTELOPE):
        lent.network(weights[0].folder, lambda: Finder(detection, FakeRecognition(), 1))
    return lent, detection


def picture(height: int = 128, width: int = 150) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def embedding(found: Any) -> torch.Tensor:
    assert isinstance(found, Detection)
    assert found.tensors is not None
    return found.tensors["face_embeds"]


def test_the_largest_face_is_taken_and_its_length_is_one(library: None) -> None:
    lent, detection = runtime()
    image = picture()
    found = embedding(load(lent, "ip-adapter_face_id")(image, resolution=64))
    raw = torch.tensor([[50.0, 30.0, 140.0, 130.0] + [0.8] * 508])
    torch.testing.assert_close(found, raw / raw.norm())
    assert np.array_equal(detection.seen, image[:, :, ::-1]), "the library wants blue first, at the picture's size"


def test_clip_sees_the_face_cut_out(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upright at 224 pixels by the library's own function, as IP-Adapter FaceID plus was trained, not the picture."""
    crop, given, shown = picture(224, 224), [], []
    utils, align = ModuleType("insightface.utils"), ModuleType("insightface.utils.face_align")
    monkeypatch.setattr(align, "norm_crop", lambda *args: (given.append(args), crop)[1], raising=False)
    monkeypatch.setattr(utils, "face_align", align, raising=False)
    monkeypatch.setitem(sys.modules, "insightface.utils", utils)

    def clip(image: np.ndarray, **_named: Any) -> Detection:
        shown.append(image)
        return Detection(tensors={"penultimate_hidden_state": torch.ones(1, 257, 1280)})

    lent, _ = runtime()
    image = picture()
    found = FaceIdPlus(lent, BUFFALO, clip)(image, resolution=64)
    assert embedding(found).norm() == pytest.approx(1.0)
    assert found.tensors is not None
    assert set(found.tensors) == {"face_embeds", "raw_face_embeds", "penultimate_hidden_state"}
    (seen, points, side), *others = given
    assert np.array_equal(seen, image)
    assert np.array_equal(points, POINTS)
    assert side == 224
    assert not others
    assert [np.array_equal(one, crop) for one in shown] == [True]


@pytest.mark.parametrize(
    ("largest", "asked"), [(640, [640]), (512, [640, 576, 512]), (256, list(range(640, 192, -64)))]
)
def test_a_face_that_fills_the_picture_is_looked_for_in_smaller_squares(largest: int, asked: list[int]) -> None:
    lent, detection = runtime()
    detection.largest = largest
    found = load(lent, "instant_id_face_keypoints")(picture(), resolution=128)
    assert isinstance(found, np.ndarray)
    assert found.any()
    assert detection.asked == asked


def test_instant_id_takes_the_embedding_as_it_is_at_the_resolution(library: None) -> None:
    lent, detection = runtime()
    found = embedding(load(lent, "instant_id_face_embedding")(picture(), resolution=256))
    torch.testing.assert_close(found, torch.tensor([[50.0, 30.0, 140.0, 130.0] + [0.8] * 508]))
    assert detection.seen.shape == (256, 320, 3), "the short side is the resolution; padded to multiples of 64"


def test_the_points_are_drawn_as_instant_id_learned_them() -> None:
    """The steps of InstantID's draw_kps, on a canvas of floats as there."""
    lent, _ = runtime()
    canvas = np.zeros((128, 192, 3))
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    for pair in ([0, 2], [1, 2], [3, 2], [4, 2]):
        x, y = POINTS[pair, 0], POINTS[pair, 1]
        length = ((x[0] - x[1]) ** 2 + (y[0] - y[1]) ** 2) ** 0.5
        angle = np.degrees(np.arctan2(y[0] - y[1], x[0] - x[1]))
        centre = (int(np.mean(x)), int(np.mean(y)))
        polygon = np.asarray(cv2.ellipse2Poly(centre, (int(length / 2), 4), int(angle), 0, 360, 1))
        cv2.fillConvexPoly(canvas, polygon, colours[pair[0]])
    canvas = (canvas * 0.6).astype(np.uint8)
    for (x, y), colour in zip(POINTS, colours, strict=True):
        cv2.circle(canvas, (int(x), int(y)), 10, colour, -1)

    found = load(lent, "instant_id_face_keypoints")(picture(), resolution=128)
    assert isinstance(found, np.ndarray)
    assert found.shape == (128, 150, 3)
    assert canvas.std() > 1
    assert np.array_equal(found, canvas[:, :150])


@pytest.mark.parametrize(("size", "factor"), [((256, 300), 0.5), ((64, 75), 2.0), ((100, 400), 1.28)])
def test_points_are_scaled_and_not_their_dots(size: tuple[int, int], factor: float) -> None:
    lent, detection = runtime()
    found = load(lent, "instant_id_face_keypoints")(picture(*size), resolution=128)
    assert detection.seen.shape[:2] == size, "the face is looked for in the whole picture"
    assert found.shape[0] == 128
    assert np.array_equal(found, draw(POINTS * factor, *found.shape[:2]))


@pytest.mark.parametrize("entry", ["ip-adapter_face_id", "instant_id_face_embedding"])
def test_the_user_sees_whose_face_it_is(library: None, entry: str) -> None:
    """The largest one's box and points on the picture itself, which stays as it was."""
    lent, _ = runtime()
    image = picture()
    before = image.copy()
    shown = load(lent, entry)(image, resolution=128).shown
    assert shown.shape == image.shape
    assert np.array_equal(image, before)
    changed = (shown != image).any(axis=2)
    assert (shown[30, 60:130] == (0, 255, 0)).all(), "the box of (50, 30, 140, 130)"
    assert (shown[60, 70] == (255, 0, 0)).all(), "the first point"
    assert not changed[:25].any()
    assert not changed[:, :45].any()


def test_a_picture_without_a_face_is_refused() -> None:
    lent, _ = runtime(np.zeros((0, 5), np.float32))
    with pytest.raises(AnnotatorError, match="no face was found"):
        load(lent, "instant_id_face_keypoints")(picture(), resolution=128)


def test_without_the_library_the_entries_say_so() -> None:
    registry = discover(None)
    for spec in SPECS:
        assert spec.id in registry or "insightface" in registry.disabled[spec.id].reason
