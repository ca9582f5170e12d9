"""DWPose and animal poses around made-up networks: what they are shown and what becomes of their answers.

The maps were compared by hand with sd-webui-controlnet's own code, which is not a package: equal on 332 people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.entries.dwpose import detector, finder, points
from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Runtime

from .makers import onnx_files

REGISTRY = discover()

pytest.importorskip("onnxruntime", reason="it runs these networks, and is an optional package")

RANDOM = np.random.default_rng(0)


def yolox_answer(things: list[tuple[float, float, float, float, int, float]], size: tuple[int, int]) -> np.ndarray:
    """The raw answer for boxes (left, top, right, bottom, class, how sure) in pixels of a (height, width) picture."""
    factor = min(640 / size[0], 640 / size[1])
    answer = np.zeros((1, 8400, 85), np.float32)
    starts = {8: 0, 16: 6400, 32: 8000}
    for number, (left, top, right, bottom, kind, sure) in enumerate(things):
        stride = (8, 16, 32)[number % 3]
        x, y = (left + right) / 2 * factor / stride, (top + bottom) / 2 * factor / stride
        place = starts[stride] + int(y) * (640 // stride) + int(x)
        while answer[0, place, 4]:  # another thing has this cell: a neighbour's answer may point here too
            place += 1
        row, column = divmod(place - starts[stride], 640 // stride)
        wide, high = (right - left) * factor / stride, (bottom - top) * factor / stride
        answer[0, place, :5] = (x - column, y - row, np.log(wide), np.log(high), sure)
        answer[0, place, 5 + kind] = 1.0
    return answer


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Of two boxes of whole pixels, counted pixel by pixel's border as upstream."""
    across = min(one[2], other[2]) - max(one[0], other[0]) + 1
    down = min(one[3], other[3]) - max(one[1], other[1]) + 1
    common = max(across, 0) * max(down, 0)
    sizes = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return common / (sum(sizes) - common)


def expected_boxes(things: list[Any], classes: tuple[int, ...]) -> list[np.ndarray]:
    kept: list[np.ndarray] = []
    for kind in classes:
        of_kind = sorted((thing for thing in things if thing[4] == kind and thing[5] > 0.3), key=lambda t: -t[5])
        mine: list[np.ndarray] = []
        for thing in of_kind:
            box = np.array(thing[:4])
            if all(overlap(box, surer) <= 0.45 for surer in mine):
                mine.append(box)
        kept += mine
    return kept


@pytest.mark.parametrize("size", [(480, 640), (900, 500), (64, 1000)], ids=str)
@pytest.mark.parametrize("classes", [finder.PERSON, finder.ANIMALS], ids=["people", "animals"])
def test_boxes_without_those_that_lie_on_surer_ones(size: tuple[int, int], classes: tuple[int, ...]) -> None:
    things = []
    for _ in range(60):
        left, top = RANDOM.random() * size[1] * 0.7, RANDOM.random() * size[0] * 0.7
        right, bottom = left + (0.1 + RANDOM.random() * 0.2) * size[1], top + (0.1 + RANDOM.random() * 0.2) * size[0]
        things.append((left, top, right, bottom, int(RANDOM.choice([0, 0, 15, 16, 30])), RANDOM.random()))
    answer = yolox_answer(things, size)
    image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    found = finder.find_boxes(image, lambda _shown: [answer], classes)
    expected = expected_boxes(things, classes)
    assert found is not None
    assert 3 < len(expected) < sum(thing[4] in classes for thing in things), "some must be dropped"
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-4, atol=0.05)


def test_the_finder_is_shown_the_picture_in_grey_borders() -> None:
    image = RANDOM.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    seen: list[np.ndarray] = []

    def network(shown: np.ndarray) -> list[np.ndarray]:
        seen.append(shown)
        return [np.zeros((1, 8400, 85), np.float32)]

    assert finder.find_boxes(image, network, finder.PERSON) is None, "an empty scene"
    (shown,) = seen
    assert (shown.shape, shown.dtype) == ((1, 3, 640, 640), np.float32)
    inner = cv2.resize(image, (640, 480), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(shown[0, :, :480], inner.transpose(2, 0, 1))
    assert (shown[0, :, 480:] == 114).all()


def brightest(shown: np.ndarray, count: int, sure: float = 0.9) -> list[np.ndarray]:
    """A network whose every point is the brightest pixel that it is shown."""
    grey = shown[0].sum(axis=0)
    y, x = np.unravel_index(int(cv2.GaussianBlur(grey, (0, 0), 2).argmax()), grey.shape)
    across = np.zeros((1, count, grey.shape[1] * 2), np.float32)
    down = np.zeros((1, count, grey.shape[0] * 2), np.float32)
    across[..., 2 * int(x)], down[..., 2 * int(y)] = sure + 0.05, sure
    return [across, down]


@pytest.mark.parametrize("box", [(50, 40, 150, 240), (100, 100, 300, 160), (-20, 150, 90, 330)], ids=str)
@pytest.mark.parametrize("size", [(288, 384), (256, 256)], ids=str)
def test_a_dot_is_found_where_it_is(box: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """Through the cut-out and back, whatever the box's shape."""
    image = np.full((320, 400, 3), 40, np.uint8)
    spot = (max(box[0], 0) + 25, box[1] + 45)
    cv2.circle(image, spot, 3, (255, 255, 255), -1)
    found = points.find_points(image, np.array(box, float), lambda shown: brightest(shown, 5), size, 5)
    assert found.shape == (5, 3)
    assert np.abs(found[:, :2] - spot).max() < 1.5
    np.testing.assert_allclose(found[:, 2], 0.9, rtol=1e-6)


def test_the_cut_out_is_normalised_and_centred() -> None:
    seen: list[np.ndarray] = []

    def network(shown: np.ndarray) -> list[np.ndarray]:
        seen.append(shown)
        return brightest(shown, 17)

    image = np.broadcast_to(np.array([10, 120, 250], np.uint8), (400, 400, 3)).copy()
    points.find_points(image, np.array([150.0, 150.0, 250.0, 250.0]), network, (256, 256), 17)
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    (shown,) = seen
    assert (shown.shape, shown.dtype) == ((1, 3, 256, 256), np.float32)
    np.testing.assert_allclose(shown[0, :, 128, 128], (image[0, 0] - mean) / std, rtol=1e-6)


# OpenPose's joints and the names of COCO-WholeBody's points that they are
COCO = ["nose", "leye", "reye", "lear", "rear", "lsho", "rsho", "lelb", "relb", "lwri", "rwri", "lhip", "rhip",
        "lkne", "rkne", "lank", "rank"]  # fmt: skip
OPENPOSE = ["nose", "neck", "rsho", "relb", "rwri", "lsho", "lelb", "lwri", "rhip", "rkne", "rank", "lhip", "lkne",
            "lank", "reye", "leye", "rear", "lear"]  # fmt: skip


def test_coco_whole_body_as_openpose() -> None:
    found = np.stack([np.arange(133.0), np.arange(133.0) + 0.5, np.full(133, 0.9)], axis=1)
    found[COCO.index("lank"), 2] = 0.29
    found[95, 2] = 0.1
    person = detector.whole_body(found)
    named = dict(zip(OPENPOSE, person.body, strict=True))
    assert named.pop("lank") is None
    neck = named.pop("neck")
    assert neck == ((5 + 6) / 2, (5 + 6) / 2 + 0.5)
    assert {name: point and point.x for name, point in named.items()} == {name: COCO.index(name) for name in named}
    assert person.face is not None
    assert [point and point.x for point in person.face] == [*range(23, 91), COCO.index("reye"), COCO.index("leye")]
    assert person.left_hand is not None
    assert [point and point.x for point in person.left_hand] == [*range(91, 95), None, *range(96, 112)]
    assert person.right_hand is not None
    assert [point and point.x for point in person.right_hand] == list(range(112, 133))


def test_a_neck_needs_both_shoulders_and_a_hand_a_point() -> None:
    found = np.ones((133, 3))
    found[5, 2] = 0.3
    found[91:112, 2] = 0.2
    person = detector.whole_body(found)
    assert person.body[1] is None
    assert person.body[5] is not None
    assert person.left_hand is None
    assert person.right_hand is not None


@pytest.mark.parametrize(("things", "people"), [([], 0), ([(50, 50, 90, 90, 30, 0.9)], 1)], ids=["empty", "no person"])
def test_where_something_but_nobody_is_the_whole_picture_is_tried(things: list[Any], people: int) -> None:
    found = detector.WholeBodies(Runtime(), *REGISTRY.get("dw_openpose_full").spec.weights)
    image = np.zeros((128, 128, 3), np.uint8)
    found._runtime.network("yolox_l.onnx", lambda: lambda _shown: [yolox_answer(things, (128, 128))])
    found._runtime.network("dw-ll_ucoco_384.onnx", lambda: lambda shown: brightest(shown, 133))
    answer = found(image, resolution=128)
    assert answer.pose is not None
    assert len(answer.pose["people"]) == people


@pytest.mark.parametrize(
    ("id_", "group", "count"), [("dw_openpose_full", "people", 2), ("animal_openpose", "animals", 1)]
)
def test_files_run_by_onnxruntime(id_: str, group: str, count: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    entry = REGISTRY.get(id_)
    (tmp_path / "openpose").mkdir()
    for weight in entry.spec.weights:
        onnx_files.MAKERS[weight.name](tmp_path / "openpose" / weight.name)
    runtime = Runtime(weight_folders=(tmp_path,))
    found = entry.load(runtime)(np.zeros((320, 320, 3), np.uint8), resolution=320)
    assert isinstance(found, Detection)
    assert found.map is not None
    assert found.pose is not None
    assert found.map.any()
    assert len(found.pose[group]) == count
    again = entry.load(Runtime(weight_folders=(tmp_path,)))
    networks = tmp_path / "openpose"
    onnx_files.simcc(networks / entry.spec.weights[1].name, 5, (288, 384) if id_ == "dw_openpose_full" else (256, 256))
    with pytest.raises(AnnotatorError, match="key points"):
        again(np.zeros((320, 320, 3), np.uint8), resolution=320)
    onnx_files.simcc(networks / "yolox_l.onnx", 5, (64, 64))
    with pytest.raises(AnnotatorError, match=r"yolox_l.onnx failed"):
        entry.load(Runtime(weight_folders=(tmp_path,)))(np.zeros((320, 320, 3), np.uint8), resolution=320)
