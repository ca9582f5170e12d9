"""MediaPipe's true weights on a photograph, against the library's own drawing and against what the photograph shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.entries.mediapipe_solutions.detector import openpose_body
from annotator.sd_controlnet.images import resize_short_side
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.skeletons import draw_json
from annotator.sd_controlnet.spec import Detection, Runtime

REGISTRY = discover()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """Eileen Collins, 512x512, from scikit-image's data, which is read without importing scikit-image."""
    package = importlib.util.find_spec("skimage")
    if package is None or "mediapipe_face" not in REGISTRY:
        pytest.skip("mediapipe or scikit-image's photographs are not installed")
    assert package.origin is not None
    image = cv2.imread(str(Path(package.origin).parent / "data" / "astronaut.png"))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)


def run(id_: str, image: np.ndarray, *params: float, resolution: int = 512) -> Detection:
    found = REGISTRY.get(id_).load(Runtime())(image, resolution=resolution, params=params)
    return found if isinstance(found, Detection) else Detection(found)


def drawn_by_the_library(image: np.ndarray) -> np.ndarray:
    """sd-webui-controlnet's map, made with mediapipe's own drawing in BGR."""
    from mediapipe import solutions

    mesh, drawing = solutions.face_mesh, solutions.drawing_utils
    contours = (
        (mesh.FACEMESH_FACE_OVAL, (10, 200, 10)),
        (mesh.FACEMESH_LEFT_EYE, (180, 200, 10)),
        (mesh.FACEMESH_LEFT_EYEBROW, (180, 220, 10)),
        (mesh.FACEMESH_RIGHT_EYE, (10, 200, 180)),
        (mesh.FACEMESH_RIGHT_EYEBROW, (10, 220, 180)),
        (mesh.FACEMESH_LIPS, (10, 180, 10)),
    )
    styles = {edge: drawing.DrawingSpec(color, 2, 1) for edges, color in contours for edge in edges}
    canvas = np.zeros_like(image)
    with mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True) as found:
        (face,) = found.process(image).multi_face_landmarks
    assert len(face.landmark) == 478
    drawing.draw_landmarks(canvas, face, list(styles), None, styles)
    for index, color in ((468, (10, 200, 250)), (473, (250, 200, 10))):
        x, y = int(face.landmark[index].x * image.shape[1]), int(face.landmark[index].y * image.shape[0])
        canvas[y - 2 : y + 2, x - 2 : x + 2] = color
    return canvas[:, :, ::-1]


@pytest.mark.parametrize("resolution", [512, 768])
def test_the_face_is_where_mediapipe_draws_it(astronaut: np.ndarray, resolution: int) -> None:
    expected = drawn_by_the_library(resize_short_side(astronaut, resolution))
    found = run("mediapipe_face", astronaut, resolution=resolution).map
    assert (expected > 0).any(axis=2).sum() > 500
    assert np.array_equal(found, expected)


def test_a_small_face_is_left_out(astronaut: np.ndarray) -> None:
    shrunk = cv2.resize(astronaut, (192, 192), interpolation=cv2.INTER_AREA).astype(np.uint8)
    canvas = np.full((512, 512, 3), 128, np.uint8)
    canvas[100:292, 100:292] = shrunk  # her face is 100 pixels high in the photograph, so 38 here
    found = run("mediapipe_face", canvas).map
    assert found is not None
    assert not found.any()


# pixels of the photograph, read off it by eye: (x, y)
SEEN = {"nose": (221, 129), "right eye": (203, 110), "left eye": (241, 108), "left shoulder": (315, 250)}
PLACES = {"nose": 0, "right eye": 14, "left eye": 15, "left shoulder": 5}


def test_the_pose_is_on_the_photograph(astronaut: np.ndarray) -> None:
    found = run("mediapipe_pose", astronaut)
    assert found.pose is not None
    assert (found.pose["canvas_width"], found.pose["canvas_height"]) == (512, 512)
    (person,) = found.pose["people"]
    points = np.array(person["pose_keypoints_2d"]).reshape(18, 3)
    for name, place in PLACES.items():
        assert points[place, 2] == 1
        off = points[place, :2] * 512 - SEEN[name]
        assert np.abs(off).max() < (30 if "shoulder" in name else 10), (name, points[place, :2] * 512)
    neck = (points[2] + points[5]) / 2
    np.testing.assert_allclose(points[1], neck)
    assert not points[[10, 13], 2].any(), "her ankles are out of the picture"
    assert np.array_equal(found.map, draw_json(found.pose))


def test_nobody_is_an_empty_map() -> None:
    if "mediapipe_pose" not in REGISTRY:
        pytest.skip("mediapipe is not installed")
    grey = np.full((128, 160, 3), 128, np.uint8)
    for id_ in ("mediapipe_face", "mediapipe_pose", "mediapipe_hands", "mediapipe_person_mask"):
        found = run(id_, grey, resolution=128)
        assert found.map is not None
        assert found.map.shape == (128, 160, 3)
        assert not found.map.any(), id_
        assert (found.pose or {"people": []})["people"] == []


def test_the_mask_covers_the_person_alone(astronaut: np.ndarray) -> None:
    found = run("mediapipe_person_mask", astronaut).map
    assert found is not None
    assert set(np.unique(found)) == {0, 255}
    person, background = ((220, 130), (150, 350), (300, 300), (220, 420)), ((20, 60), (440, 60), (60, 200))
    assert all(found[y, x, 0] == 255 for x, y in person)
    assert all(found[y, x, 0] == 0 for x, y in background)
    assert 0.3 < (found > 0).mean() < 0.8


def test_hands_are_people_with_the_side_of_an_unmirrored_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No photograph at hand shows one: the library's answer is made up."""
    from annotator.sd_controlnet.entries.mediapipe_solutions import detector

    random = np.random.default_rng(0)
    places = random.random((2, 21, 2)) * 0.8 + 0.1
    places[1, 4] = (1.2, 0.5)

    class Answer:
        def __init__(self, **options: Any) -> None:
            assert options == {"static_image_mode": True, "max_num_hands": 3, "min_detection_confidence": 0.25}

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def process(self, image: np.ndarray) -> Any:
            assert image.shape == (64, 64, 3)
            return SimpleNamespace(
                multi_handedness=[
                    SimpleNamespace(classification=[SimpleNamespace(label=label)]) for label in ("Left", "Right")
                ],
                multi_hand_landmarks=[
                    SimpleNamespace(landmark=[SimpleNamespace(x=x, y=y) for x, y in hand]) for hand in places
                ],
            )

    fake = SimpleNamespace(hands=SimpleNamespace(Hands=Answer))
    monkeypatch.setattr(detector, "solutions", lambda: fake)
    found = detector.Hands(Runtime())(np.zeros((64, 64, 3), np.uint8), resolution=64, params=(3.0, 0.25))
    assert found.pose is not None
    first, second = found.pose["people"]
    assert first["hand_left_keypoints_2d"] is None
    right = np.array(first["hand_right_keypoints_2d"]).reshape(21, 3)
    np.testing.assert_allclose(right[:, :2], places[0])
    left = np.array(second["hand_left_keypoints_2d"]).reshape(21, 3)
    assert left[4].tolist() == [0, 0, 0], "out of the picture"
    np.testing.assert_allclose(np.delete(left[:, :2], 4, axis=0), np.delete(places[1], 4, axis=0))


def test_blazepose_as_openpose() -> None:
    """Each of OpenPose's joints is the one that the library calls by its name."""
    pose = pytest.importorskip("mediapipe").solutions.pose
    names = [mark.name.lower() for mark in pose.PoseLandmark]
    marks = [SimpleNamespace(x=index / 40, y=0.5, visibility=1.0) for index in range(33)]
    marks[names.index("left_knee")].visibility = 0.4
    marks[names.index("right_knee")].x = 1.1
    found = openpose_body(marks)
    arms = ("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist")
    legs = ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")
    expected = ("nose", "neck", *arms, *legs, "right_eye", "left_eye", "right_ear", "left_ear")
    named = dict(zip(expected, found, strict=True))
    assert named.pop("left_knee") is None
    assert named.pop("right_knee") is None
    neck = named.pop("neck")
    assert neck is not None
    assert neck.x == pytest.approx((11 + 12) / 2 / 40)
    assert {name: point and round(point.x * 40) for name, point in named.items()} == {
        name: names.index(name) for name in named
    }
