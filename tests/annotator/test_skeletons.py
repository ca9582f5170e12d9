"""Poses as JSON and as drawings; drawn pixel by pixel as controlnet_aux draws."""

from __future__ import annotations

import colorsys
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.skeletons import Person, Point, draw, draw_json, to_json
from annotator.sd_controlnet.spec import AnnotatorError

RANDOM = np.random.default_rng(1)


def points(count: int, missing: float = 0.0) -> list[Point | None]:
    return [None if RANDOM.random() < missing else Point(*(RANDOM.random(2) * 0.9 + 0.05)) for _ in range(count)]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """controlnet_aux's drawing, for which matplotlib's one function comes from the standard library."""
    colors = SimpleNamespace(hsv_to_rgb=lambda hsv: np.array(colorsys.hsv_to_rgb(*hsv)))
    fake = ModuleType("matplotlib")
    fake.colors = colors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", fake)
    return controlnet_aux("open_pose.util")


def test_a_person_is_drawn_as_the_peer_draws(peer: Any) -> None:
    for size in ((256, 256), (384, 512)):
        people = [Person(points(18, 0.2), points(21), points(21), points(68)) for _ in range(3)]  # type: ignore[arg-type]
        canvas = np.zeros((*size, 3), np.uint8)
        for person in people:
            canvas = peer.draw_bodypose(canvas, person.body)
            canvas = peer.draw_handpose(canvas, person.left_hand)
            canvas = peer.draw_handpose(canvas, person.right_hand)
            canvas = peer.draw_facepose(canvas, person.face)
        assert np.array_equal(draw(people, (), *size), canvas)
        assert canvas.any()


def test_missing_points_of_hands_are_not_drawn(peer: Any) -> None:
    hand = [Point(-1 / 64, -1 / 64) if place % 3 == 0 else point for place, point in enumerate(points(21))]
    expected = peer.draw_handpose(np.zeros((64, 64, 3), np.uint8), hand)
    assert np.array_equal(draw([Person((), left_hand=hand)], (), 64, 64), expected)


def test_json_there_and_back() -> None:
    people = [Person(points(18, 0.3), None, points(21), points(70)), Person(points(18))]  # type: ignore[arg-type]
    animals = [[None if point is None else Point(point.x * 320, point.y * 240) for point in points(17, 0.2)]]
    pose = to_json(people, animals, 240, 320)
    assert np.array_equal(draw_json(pose), draw(people, animals, 240, 320))
    assert pose["people"][0]["hand_left_keypoints_2d"] is None
    assert len(pose["people"][0]["face_keypoints_2d"]) == 210


def test_points_in_pixels_are_drawn_where_they_are() -> None:
    parts = points(18)
    whole = [None if point is None else Point(point.x * 200, point.y * 100) for point in parts]
    assert np.array_equal(draw([Person(whole)], (), 100, 200), draw([Person(parts)], (), 100, 200))


def test_low_confidence_is_missing() -> None:
    numbers = [0.5, 0.5, 1.0] * 18
    numbers[2] = 0.9
    pose = {"people": [{"pose_keypoints_2d": numbers}], "canvas_width": 64, "canvas_height": 64}
    body = [None, *[Point(0.5, 0.5)] * 17]
    assert np.array_equal(draw_json(pose), draw([Person(body)], (), 64, 64))


def test_animals_are_lines() -> None:
    animal: list[Point | None] = [None] * 17
    animal[0], animal[1] = Point(10, 10), Point(50, 10)
    canvas = np.zeros((64, 64, 3), np.uint8)
    cv2.line(canvas, (10, 10), (50, 10), (255, 255, 255), 5)
    assert np.array_equal(draw((), [animal], 64, 64), canvas)


@pytest.mark.parametrize(
    "pose",
    [
        {"people": []},
        {"people": [{"pose_keypoints_2d": [1, 2]}], "canvas_width": 8, "canvas_height": 8},
        {"people": [{"pose_keypoints_2d": ["a", 1, 1]}], "canvas_width": 8, "canvas_height": 8},
        {"people": ["x"], "canvas_width": 8, "canvas_height": 8},
        {"people": [], "canvas_width": 0, "canvas_height": 8},
        {"people": [], "canvas_width": 90000, "canvas_height": 90000},
    ],
    ids=["no canvas", "no triples", "letters", "no person", "empty canvas", "huge canvas"],
)
def test_what_is_no_pose_is_refused(pose: dict[str, Any]) -> None:
    with pytest.raises(AnnotatorError, match=r"pose"):
        draw_json(pose)
