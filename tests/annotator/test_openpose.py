"""OpenPose's post-processing against controlnet_aux's, fed with the same made-up heat maps and affinity fields."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch

from annotator.sd_controlnet.entries.openpose import body, detector, face_net, parts
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.skeletons import LIMBS, Point
from annotator.sd_controlnet.spec import Runtime, WeightFile

RANDOM = np.random.default_rng(0)
STANDING = [(0.5, 0.15), (0.5, 0.26), (0.42, 0.27), (0.38, 0.4), (0.37, 0.53), (0.58, 0.25), (0.62, 0.4),
            (0.63, 0.54), (0.45, 0.52), (0.44, 0.7), (0.43, 0.88), (0.55, 0.53), (0.56, 0.7), (0.57, 0.89),
            (0.48, 0.13), (0.52, 0.12), (0.46, 0.14), (0.54, 0.15)]  # fmt: skip


@pytest.fixture(autouse=True)
def without_skimage(monkeypatch: pytest.MonkeyPatch) -> None:
    """controlnet_aux's hands need one function of it, which SciPy has too."""
    if "skimage" in sys.modules:
        return

    def label(binary: np.ndarray, return_num: bool, connectivity: int) -> Any:
        assert return_num
        assert connectivity == 2
        return scipy.ndimage.label(binary, np.ones((3, 3)))

    measure = ModuleType("skimage.measure")
    measure.label = label  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skimage", ModuleType("skimage"))
    monkeypatch.setitem(sys.modules, "skimage.measure", measure)


def people(count: int, hidden: int = 0) -> list[list[tuple[float, float] | None]]:
    """`count` people side by side, smaller the more they are; each lacks `hidden` joints at random."""
    found: list[list[tuple[float, float] | None]] = []
    for number in range(count):
        left, tall = number / count, 0.6 + 0.3 * RANDOM.random()
        joints: list[Any] = [(left + (x - 0.25) * 2 / count * 0.5, y * tall) for x, y in STANDING]
        for place in RANDOM.choice(18, hidden, replace=False):
            joints[place] = None
        found.append(joints)
    return found


def maps(crowd: list[list[tuple[float, float] | None]], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What a perfect network with some noise would say: fields (38, h, w), heat (19, h, w)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    heat = RANDOM.normal(0, 0.005, (19, height, width)).astype(np.float32)
    fields = RANDOM.normal(0, 0.01, (38, height, width)).astype(np.float32)
    for joints in crowd:
        for part, joint in enumerate(joints):
            if joint is not None:
                distance = (columns - joint[0] * width) ** 2 + (rows - joint[1] * height) ** 2
                heat[part] = np.maximum(heat[part], 0.9 * np.exp(-distance / 2.0))
        for (start, end), (x, y) in zip((*LIMBS, (2, 16), (5, 17)), body._FIELDS, strict=True):
            one, other = joints[start], joints[end]
            if one is not None and other is not None:
                begin, stop = np.array(one) * (width, height), np.array(other) * (width, height)
                line = np.zeros((height, width), np.uint8)
                cv2.line(line, tuple(map(int, begin)), tuple(map(int, stop)), 1, 2)
                way = (stop - begin) / max(float(np.hypot(*(stop - begin))), 0.01)
                fields[x][line > 0], fields[y][line > 0] = way
    return fields, heat


def reference(name: str, model: Any) -> Any:
    """controlnet_aux's class around `model`, without its files."""
    controlnet_aux("open_pose.util")  # it and body import each other; this order works, as in their package
    module = controlnet_aux(f"open_pose.{name.lower()}")
    made = object.__new__(getattr(module, name))
    made.model = model
    return made


class FakeNetwork(torch.nn.Module):
    """Answers with maps that were made up, whatever it is shown."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, x: torch.Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(("count", "hidden"), [(0, 0), (1, 0), (2, 3), (4, 5), (7, 6)])
@pytest.mark.parametrize("size", [(256, 320), (448, 384)])
def test_people_are_those_of_controlnet_aux(count: int, hidden: int, size: tuple[int, int]) -> None:
    image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = 23, -(-int(size[1] * 184 / size[0]) // 8)
    fields, heat = maps(people(count, hidden), height, width)

    def answer(x: torch.Tensor) -> Any:
        assert x.shape == (1, 3, height * 8, width * 8)
        return torch.from_numpy(fields)[None], torch.from_numpy(heat)[None]

    theirs = reference("Body", FakeNetwork(answer))
    candidate, subset = theirs(image)
    expected = [[None if k is None else (k.x, k.y) for k in person.keypoints]
                for person in theirs.format_body_result(candidate, subset)]  # fmt: skip
    found = body.find_bodies(image, lambda _image: (fields, heat))
    assert [[None if point is None else tuple(point) for point in person] for person in found] == expected
    assert len(expected) >= min(count, 1), "nobody found would prove little"


def test_the_network_sees_what_controlnet_aux_shows_it() -> None:
    image = RANDOM.integers(0, 256, (300, 410, 3), dtype=np.uint8)
    seen: list[np.ndarray] = []

    def theirs(x: torch.Tensor) -> Any:
        seen.append(x[0].permute(1, 2, 0).numpy())
        return torch.zeros(1, 38, x.shape[2] // 8, x.shape[3] // 8), torch.zeros(
            1, 19, x.shape[2] // 8, x.shape[3] // 8
        )

    def ours(shown: np.ndarray) -> Any:
        seen.append(shown.astype(np.float32) / 256 - 0.5)
        h, w = shown.shape[0] // 8, shown.shape[1] // 8
        return np.zeros((38, h, w), np.float32), np.zeros((19, h, w), np.float32)

    reference("Body", FakeNetwork(theirs))(image)
    body.find_bodies(image, ours)
    assert np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("missing", [0, 5, 21])
def test_hands_are_those_of_controlnet_aux(missing: int) -> None:
    image = RANDOM.integers(0, 256, (90, 90, 3), dtype=np.uint8)
    spots = RANDOM.random((21, 2)) * 0.8 + 0.1

    def heat(side: int) -> np.ndarray:
        rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
        made = np.zeros((22, side, side), np.float32)
        for point, (x, y) in enumerate(spots[missing:]):
            made[point + missing] = 0.8 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.004)
            made[point + missing] += 0.5 * np.exp(-((columns - y) ** 2 + (rows - x) ** 2) / 0.002)
        return made

    theirs = reference("Hand", FakeNetwork(lambda x: torch.from_numpy(heat(x.shape[2] // 8))[None]))
    expected = [tuple(map(int, point)) for point in theirs(image)]
    found = parts.find_hand(image, lambda shown: heat(shown.shape[0] // 8), lambda: None)
    assert found == expected
    assert sum(point == (0, 0) for point in expected) == missing


def test_boxes_are_those_of_controlnet_aux() -> None:
    util = controlnet_aux("open_pose.util")
    image = np.zeros((200, 300, 3), np.uint8)
    compared = 0
    for _ in range(300):
        points = [
            None if RANDOM.random() < 0.2 else Point(RANDOM.random() * 300, RANDOM.random() * 200) for _ in range(18)
        ]
        person = SimpleNamespace(keypoints=points)
        expected = {left: (x, y, side) for x, y, side, left in util.handDetect(person, image)}
        for left, (shoulder, elbow, wrist) in ((True, (5, 6, 7)), (False, (2, 3, 4))):
            box = parts.hand_box(points[shoulder], points[elbow], points[wrist], image)
            assert (None if box is None else tuple(box)) == expected.get(left)
            compared += box is not None
        box = parts.face_box(points, image)
        assert (None if box is None else tuple(box)) == util.faceDetect(person, image)
        compared += box is not None
    assert compared > 100


def test_face_points_are_the_hottest_places() -> None:
    image = RANDOM.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    heat = RANDOM.random((71, 48, 48)).astype(np.float32)
    heat[3] = 0.04
    found = parts.find_face(image, lambda shown: heat)
    full = torch.nn.functional.interpolate(torch.from_numpy(heat)[None], (60, 60), mode="bilinear", align_corners=True)[
        0
    ]
    expected = [divmod(int(plane.argmax()), 60)[::-1] for number, plane in enumerate(full) if number != 3]
    assert found == expected


def test_the_face_network_has_the_published_names_and_sizes() -> None:
    network = face_net.FaceNet()
    names = set(network.state_dict())
    assert {"conv5_3_CPM.weight", "conv6_2_CPM.bias", "Mconv7_stage6.weight", "Mconv1_stage2.bias"} <= names
    assert len(names) == 2 * (15 + 2 + 5 * 7)
    assert network.Mconv1_stage4.weight.shape == (128, 199, 7, 7)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 71, 8, 8)


def test_a_drawing_and_its_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faces only: the body is in the JSON and not in the drawing."""
    weight = WeightFile(name="x", folder="x", size=1, licence="x")
    found = detector.OpenPose(Runtime(), weight, None, weight, draws_body=False)
    fields, heat = maps(people(1), 23, 23)
    monkeypatch.setattr(found, "_body_maps", lambda _image: (fields, heat))
    monkeypatch.setattr(found, "_face_maps", lambda shown: np.full((71, 48, 48), 0.5, np.float32))
    result = found(RANDOM.integers(0, 256, (200, 200, 3), dtype=np.uint8), resolution=320)
    assert result.map is not None
    assert result.pose is not None
    assert result.map.shape == (320, 320, 3)
    assert (result.pose["canvas_width"], result.pose["canvas_height"]) == (320, 320)
    (person,) = result.pose["people"]
    assert len(person["pose_keypoints_2d"]) == 54
    assert person["hand_left_keypoints_2d"] is None
    assert set(np.unique(result.map)) <= {0, 255}, "only white dots"


def patches(count: int, side: int) -> np.ndarray:
    """Soft patches of heat, the same for a picture of another size."""
    noise = np.random.default_rng(3).random((count, 23, 23)).astype(np.float32)
    soft = [cv2.resize(cv2.GaussianBlur(plane, (0, 0), 1.5), (side, side)) for plane in noise]
    return np.stack([(plane - 0.5) * 4 + 0.1 for plane in soft])


@pytest.mark.parametrize(("size", "count"), [((512, 512), 1), ((640, 448), 2), ((320, 512), 2)], ids=str)
def test_the_drawing_is_that_of_controlnet_aux(
    size: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies, hands and faces, from the picture to the last pixel."""
    for name in ("torchvision", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for name in ("ToTensor", "ToPILImage"):
        monkeypatch.setattr(sys.modules["torchvision.transforms"], name, object, raising=False)
    fields, heat = maps(people(count), 23, -(-int(size[1] * 184 / size[0]) // 8))
    networks = (
        ("Body", lambda _x: (torch.from_numpy(fields)[None], torch.from_numpy(heat)[None])),
        ("Hand", lambda x: torch.from_numpy(patches(22, x.shape[2] // 8))[None]),
        ("Face", lambda _x: [torch.from_numpy(patches(71, 48))[None]]),
    )
    theirs = [reference(name, FakeNetwork(answer)) for name, answer in networks]
    package = controlnet_aux("open_pose.__init__")
    image = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = package.draw_poses(package.OpenposeDetector(*theirs).detect_poses(image, True, True), *size)

    weight = WeightFile(name="x", folder="x", size=1, licence="x")
    found = detector.OpenPose(Runtime(), weight, weight, weight, draws_body=True)
    monkeypatch.setattr(found, "_body_maps", lambda _shown: (fields, heat))
    monkeypatch.setattr(found, "_hand_maps", lambda shown: patches(22, shown.shape[0] // 8))
    monkeypatch.setattr(found, "_face_maps", lambda _shown: patches(71, 48))
    result = found(image, resolution=min(size))
    assert {(0, 0, 255), (255, 255, 255)} <= {tuple(pixel) for pixel in expected.reshape(-1, 3)}, "hands and faces"
    assert np.array_equal(result.map, expected)
