"""Every metric against an independent implementation, on maps with known answers, and by what must always hold.

Frozen figures are of torchmetrics 1.9.0 and pycocotools 2.0.11 on the very same maps, which need neither here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from annotator.sd_controlnet.registry import discover
from lib_controlnet.core.errors import ControlNetError
from lib_controlnet.measure.metrics import METRICS, UNKNOWN, kind_of, metric_of
from lib_controlnet.measure.people import BODY_SIGMAS
from lib_controlnet.measure.score import Evidence, Score
from lib_controlnet.measure.segments import Segments

from . import maps
from .maps import PALETTE, STANDING

OF_ANY_MAP = sorted(set(METRICS) - {"poses", "embedding"})
SCENES = {
    "lines": maps.line_scene(),
    "depth": maps.depth_scene(),
    "normals": maps.normal_scene(),
    "segments": PALETTE[maps.class_scene()],
    "regions": PALETTE[maps.class_scene()],
    "pictures": maps.smooth(),
    "colours": maps.smooth(),
    "unknown": maps.smooth(),
}


def value(score: Score, name: str) -> float:
    found = score.values[name]
    assert found is not None
    return found


@pytest.mark.parametrize("kind", OF_ANY_MAP)
def test_identical_is_perfect(kind: str) -> None:
    score = metric_of(kind).compare(SCENES[kind], SCENES[kind].copy())
    assert score.adherence == pytest.approx(1)
    for name in metric_of(kind).better.keys() - {"lpips"}:  # without its network, see test_perceptual.py
        better = metric_of(kind).better[name]
        assert score.values[name] == pytest.approx({"psnr": 100}.get(name, 1 if better else 0), abs=1e-9), name


@pytest.mark.parametrize("kind", OF_ANY_MAP)
def test_every_number_says_how_it_was_taken(kind: str) -> None:
    metric = metric_of(kind)
    score = metric.compare(SCENES[kind], SCENES[kind])
    assert set(score.values) == set(metric.better)
    assert all(score.measured[name] for name in score.values)
    height, width = SCENES[kind].shape[:2]
    assert score.measured["size"] == f"{width}x{height}"
    assert score.main in score.values


@pytest.mark.parametrize("kind", sorted(set(OF_ANY_MAP) - {"colours"}))
def test_mirrored_is_worse_and_the_field_shows_where(kind: str) -> None:
    wanted = SCENES[kind]
    metric = metric_of(kind)
    mirrored = np.ascontiguousarray(wanted[:, ::-1])
    assert metric.compare(mirrored, wanted).adherence < 0.9  # type: ignore[operator]
    followed, not_followed = metric.followed(wanted, wanted), metric.followed(mirrored, wanted)
    assert followed is not None
    assert not_followed is not None
    assert followed.min() >= 0
    assert followed.max() == 1
    assert not_followed.min() < 0
    assert np.abs(not_followed).max() <= 1


@pytest.mark.parametrize("kind", sorted(set(OF_ANY_MAP) - {"colours"}))
def test_monotone_in_shift(kind: str) -> None:
    wanted = SCENES[kind]
    scores = [metric_of(kind).compare(np.roll(wanted, s, 1), wanted).adherence for s in (0, 3, 4)]
    assert scores[0] > scores[1] > scores[2]  # type: ignore[operator]


@pytest.mark.parametrize(("kind", "name"), [("lines", "ms_ssim"), ("depth", "rmse"), ("pictures", "ssim"),
                                            ("pictures", "psnr"), ("normals", "mean_angle")])  # fmt: skip
def test_monotone_in_blur(kind: str, name: str) -> None:
    wanted = SCENES[kind]
    metric = metric_of(kind)
    blurred = [cv2.GaussianBlur(wanted, (0, 0), sigma) for sigma in (0.5, 1, 2, 4)]
    values = [value(metric.compare(one, wanted), name) for one in blurred]
    assert values == sorted(values, reverse=metric.better[name])
    assert len(set(values)) == len(values)


# lines

TORCHMETRICS = {
    # shift: (BinaryF1Score, MultiScaleStructuralSimilarityIndexMeasure)
    0: (1.0, 1.0),
    1: (0.42728903889656067, 0.9421818178088118),
    2: (0.28067025542259216, 0.8525419091651483),
    5: (0.13704368472099304, 0.653755244330616),
}


@pytest.mark.parametrize("shift", TORCHMETRICS)
def test_shifted_lines_as_torchmetrics_says(shift: int) -> None:
    wanted = maps.line_scene()
    score = metric_of("lines").compare(np.roll(wanted, shift, 1), wanted)
    f1, ms_ssim = TORCHMETRICS[shift]
    assert score.values["f1"] == pytest.approx(f1, abs=1e-6)
    assert score.values["ms_ssim"] == pytest.approx(ms_ssim, abs=1e-7)
    assert (score.values["f1_tolerant"] == pytest.approx(1, abs=0.02)) is (shift <= 2)


@given(seed=st.integers(0, 10_000), shift=st.integers(0, 6))
@settings(max_examples=15, deadline=None)
def test_tolerant_f1_as_scipy_says(seed: int, shift: int) -> None:
    """By dilation with a disc, where we measure distances."""
    wanted = maps.line_scene(64, seed)
    found = np.roll(maps.line_scene(64, seed // 2), shift, 0)
    y, x = np.mgrid[-2:3, -2:3]
    disc = x * x + y * y <= 4
    a, b = found.max(2) > 127, wanted.max(2) > 127
    precision = (a & ndimage.binary_dilation(b, disc)).sum() / a.sum()
    recall = (b & ndimage.binary_dilation(a, disc)).sum() / b.sum()
    score = metric_of("lines").compare(found, wanted)
    assert score.values["precision"] == pytest.approx(precision)
    assert score.values["recall"] == pytest.approx(recall)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert score.values["f1_tolerant"] == pytest.approx(expected)


def test_a_faint_map_is_compared_by_what_it_shows() -> None:
    wanted = maps.smooth() // 3
    score = metric_of("lines").compare(maps.noisy(wanted, 20), wanted)
    assert score.values["f1"] is None
    assert score.main == "ms_ssim"
    assert score.adherence == score.values["ms_ssim"]
    assert "nowhere brighter" in score.measured["f1"]


@pytest.mark.parametrize(("found", "wanted", "adherence"), [(0, 0, 1), (0, 1, 0), (1, 0, 0)])
def test_empty_lines(found: int, wanted: int, adherence: float) -> None:
    lines = maps.line_scene(64)
    score = metric_of("lines").compare(lines * np.uint8(found), lines * np.uint8(wanted))
    assert score.adherence == adherence


def test_small_maps_have_fewer_scales() -> None:
    score = metric_of("lines").compare(maps.line_scene(64), maps.line_scene(64))
    assert "3 scales" in score.measured["ms_ssim"]
    tiny = metric_of("lines").compare(maps.line_scene(8), maps.line_scene(8))
    assert tiny.values["ms_ssim"] is None
    assert "not taken" in tiny.measured["ms_ssim"]


# depth, normals


@given(scale=st.floats(0.3, 0.9), shift=st.floats(0, 20), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_depth_as_least_squares_says(scale: float, shift: float, seed: int) -> None:
    wanted = maps.depth_scene(32)
    found = np.clip(maps.noisy(wanted, 15, seed) * scale + shift, 0, 255).astype(np.uint8)
    a, b = found.mean(2).ravel(), wanted.mean(2).ravel()
    (m, t), *_ = np.linalg.lstsq(np.stack([a, np.ones_like(a)], 1), b, rcond=None)
    score = metric_of("depth").compare(found, wanted)
    assert score.values["rmse"] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)))
    assert score.values["si_rmse"] == pytest.approx(np.sqrt(np.mean((m * a + t - b) ** 2)))
    assert score.values["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_depth_bears_scale_and_not_inversion() -> None:
    wanted = maps.depth_scene()
    scaled = metric_of("depth").compare((wanted * 0.5 + 30).astype(np.uint8), wanted)
    assert scaled.values["si_rmse"] == pytest.approx(0, abs=1)
    assert value(scaled, "rmse") > 10
    assert scaled.adherence == pytest.approx(1, abs=1e-3)
    turned = metric_of("depth").compare(255 - wanted, wanted)
    assert turned.adherence == 0
    assert turned.values["si_rmse"] == pytest.approx(wanted.astype(float).std())


def test_depth_of_a_plane() -> None:
    plane = np.full((32, 32, 3), 90, np.uint8)
    assert metric_of("depth").compare(plane, plane).adherence == 1
    other = metric_of("depth").compare(plane + np.uint8(51), plane)
    assert other.values["correlation"] is None
    assert other.adherence == pytest.approx(0.8)


@pytest.mark.parametrize("degrees", [0, 10, 60, 90])
def test_turned_normals(degrees: int) -> None:
    turn = np.radians(degrees)
    one, other = np.array([0, 0, 1.0]), np.array([np.sin(turn), 0, np.cos(turn)])
    fields = [np.tile(np.rint((n + 1) * 127.5).astype(np.uint8), (16, 16, 1)) for n in (one, other)]
    score = metric_of("normals").compare(fields[1], fields[0])
    assert score.values["mean_angle"] == pytest.approx(degrees, abs=0.6)
    assert score.values["within_30"] == float(degrees < 30)
    assert score.adherence == pytest.approx(max(0, 1 - degrees / 90), abs=0.01)


# segments


def test_miou_as_torchmetrics_says() -> None:
    rng = np.random.default_rng(7)
    found, wanted = (np.kron(rng.integers(0, 4, (8, 8)), np.ones((8, 8), int)) for _ in range(2))
    wanted[:, :32] = found[:, :32]
    for metric in (metric_of("segments"), Segments(palette=tuple(map(tuple, PALETTE.tolist())))):  # type: ignore[arg-type]
        score = metric.compare(PALETTE[found], PALETTE[wanted])
        assert score.values["miou"] == pytest.approx(0.4747871160507202)
        assert score.values["accuracy"] == pytest.approx((found == wanted).mean())


def test_a_permuted_palette_is_wrong_and_regions_bear_it() -> None:
    classes = maps.class_scene()
    wanted, permuted = PALETTE[classes], PALETTE[(classes + 1) % 4]
    assert metric_of("segments").compare(permuted, wanted).adherence == 0
    assert metric_of("regions").compare(permuted, wanted).adherence == 1


def test_blended_borders_are_no_classes() -> None:
    wanted = np.kron(PALETTE[np.array([[0, 1], [2, 3]])], np.ones((64, 64, 1), np.uint8))
    blended = wanted.copy()
    blended[63:65] = (99, 99, 99)
    score = metric_of("segments").compare(blended, wanted)
    assert "4 colours" in score.measured["miou"]
    assert value(score, "miou") > 0.97


# pictures


def test_pictures_as_scipy_says() -> None:
    wanted = maps.smooth()
    found = maps.noisy(wanted)
    score = metric_of("pictures").compare(found, wanted)

    def blurred(x: Any) -> Any:
        return ndimage.gaussian_filter(x, (1.5, 1.5, 0), radius=(5, 5, 0))[5:-5, 5:-5]

    a, b = found.astype(float), wanted.astype(float)
    means = blurred(a), blurred(b)
    spreads = blurred(a * a) - means[0] ** 2, blurred(b * b) - means[1] ** 2
    shared = blurred(a * b) - means[0] * means[1]
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * means[0] * means[1] + c1) * (2 * shared + c2)) / (
        (means[0] ** 2 + means[1] ** 2 + c1) * (spreads[0] + spreads[1] + c2)
    )
    assert score.values["ssim"] == pytest.approx(expected.mean(), abs=1e-9)
    assert score.values["psnr"] == pytest.approx(23.177112579345703, abs=1e-5)  # torchmetrics


def test_what_is_to_be_painted_anew_is_not_scored() -> None:
    wanted = maps.smooth()
    painted = np.dstack([wanted, np.zeros(wanted.shape[:2], np.uint8)])
    painted[20:60, 30:70, 3] = 255
    found = wanted.copy()
    found[20:60, 30:70] = 0
    score = metric_of("pictures").compare(found, painted)
    assert score.values["psnr"] == 100
    assert value(metric_of("pictures").compare(found, wanted), "psnr") < 30


def test_colours_do_not_ask_for_places() -> None:
    wanted = maps.smooth()
    shuffled = np.random.default_rng(0).permutation(wanted.reshape(-1, 3)).reshape(wanted.shape)
    assert metric_of("colours").compare(shuffled, wanted).adherence == pytest.approx(1)
    assert metric_of("colours").compare(255 - wanted // 4, wanted // 4).adherence < 0.1  # type: ignore[operator]


# poses


def test_oks_as_pycocotools_says() -> None:
    """COCO's order of joints in OpenPose's: the same points and area, whatever the numbers of the joints."""
    rng = np.random.default_rng(11)
    wanted = rng.uniform(50, 250, (17, 2))
    found = wanted + rng.normal(0, 8, (17, 2))
    coco = [0, 14, 15, 16, 17, 2, 5, 3, 6, 4, 7, 8, 11, 9, 12, 10, 13]  # OpenPose's number of COCO's i-th joint
    people = []
    for points in (found, wanted):
        person = np.zeros((18, 3))
        person[coco, :2], person[coco, 2] = points, 1
        people.append({"people": [{"pose_keypoints_2d": person.ravel().tolist()}], "canvas_width": 300,
                       "canvas_height": 300})  # fmt: skip
    score = metric_of("poses").compare(Evidence(pose=people[0]), Evidence(pose=people[1]))
    assert score.values["oks"] == pytest.approx(0.88394481, abs=1e-6)
    assert sum(sigma > 0 for sigma in BODY_SIGMAS) == 17


def compare_poses(found: dict[str, Any], wanted: dict[str, Any], inside: Any = None) -> Score:
    return metric_of("poses").compare(Evidence(pose=found), Evidence(pose=wanted), inside)


def test_people_are_matched() -> None:
    left, right = STANDING, STANDING * [1, 0.9] + [200, 30]
    same = compare_poses(maps.pose(right, left), maps.pose(left, right))
    assert (same.values["oks"], same.values["pck"], same.adherence) == (1, 1, 1)
    one = compare_poses(maps.pose(right), maps.pose(left, right))
    assert (one.values["oks"], one.values["pck"], one.values["people"]) == (0.5, 0.5, 1)
    three = compare_poses(maps.pose(right, left, left + 120), maps.pose(left, right))
    assert (three.values["oks"], three.values["people"], three.values["people_wanted"]) == (1, 3, 2)


@pytest.mark.parametrize("shift", [0, 2, 5, 20, 60])
def test_shifted_person(shift: int) -> None:
    score = compare_poses(maps.pose(STANDING + np.array([shift, 0])), maps.pose(STANDING))
    width, height = np.ptp(STANDING, axis=0)
    k = 2 * np.array([s for s in BODY_SIGMAS if s > 0])
    assert score.values["oks"] == pytest.approx(np.exp(-(shift**2) / (2 * width * height * k**2)).mean())
    assert score.values["pck"] == float(shift <= 0.2 * height)


def test_a_smaller_canvas_and_parts_of_it_are_the_same_pose() -> None:
    half = maps.pose(STANDING / 2, size=(200, 150))
    parts = maps.pose(STANDING / [400, 300])
    assert compare_poses(half, maps.pose(STANDING)).values["oks"] == pytest.approx(1)
    assert compare_poses(parts, maps.pose(STANDING)).values["oks"] == pytest.approx(1)


def test_nobody() -> None:
    assert compare_poses(maps.pose(), maps.pose()).adherence == 1
    assert compare_poses(maps.pose(), maps.pose(STANDING)).adherence == 0
    assert compare_poses(maps.pose(STANDING), maps.pose()).adherence == 0


def test_people_outside_are_not_scored() -> None:
    inside = np.zeros((300, 400), bool)
    inside[:, :150] = True
    score = compare_poses(maps.pose(STANDING), maps.pose(STANDING, STANDING + np.array([200, 0])), inside)
    assert (score.values["oks"], score.values["people_wanted"]) == (1, 1)


def test_drawings_without_key_points_are_compared_as_lines() -> None:
    drawing = maps.line_scene(64)
    score = metric_of("poses").compare(Evidence(drawing, maps.pose(STANDING)), drawing)
    assert score.values["f1"] == 1
    assert "for want of key points" in score.measured["f1"]


def test_what_is_no_pose_is_refused() -> None:
    with pytest.raises(ControlNetError, match="OpenPose's JSON"):
        compare_poses({"people": [{"pose_keypoints_2d": [1, 2]}], "canvas_width": 9, "canvas_height": 9},
                      maps.pose(STANDING))  # fmt: skip


# embeddings


def test_cosine_of_embeddings() -> None:
    a, b = np.array([[1.0, 0, 1]]), np.array([[1.0, 1, 0], [1, 0, 1]])
    score = metric_of("embedding").compare(Evidence(tensors={"image_embeds": a}), Evidence(tensors={"image_embeds": b}))
    assert score.values["cosine"] == pytest.approx((0.5 + 1) / 2)
    with pytest.raises(ControlNetError, match="one encoder"):
        metric_of("embedding").compare(Evidence(tensors={"a": a}), Evidence(tensors={"b": a}))


# what holds for all


@pytest.mark.parametrize("kind", OF_ANY_MAP)
def test_what_lies_outside_is_not_scored(kind: str) -> None:
    wanted = SCENES[kind]
    inside = np.zeros(wanted.shape[:2], bool)
    half = wanted.shape[1] // 2
    inside[:, :half] = True
    found = wanted.copy()
    found[:, half + 12 :] = np.random.default_rng(0).integers(0, 256, found[:, half + 12 :].shape)
    score = metric_of(kind).compare(found, wanted, inside)
    if kind == "lines":  # MS-SSIM sees beyond the border in its coarse scales
        assert score.values["f1"] == 1
    assert score.adherence == pytest.approx(1)
    field = metric_of(kind).followed(found, wanted, inside)
    assert field is None or not field[:, half:].any()


@pytest.mark.parametrize("kind", OF_ANY_MAP)
def test_nothing_to_score(kind: str) -> None:
    wanted = SCENES[kind]
    score = metric_of(kind).compare(wanted, wanted, np.zeros(wanted.shape[:2], bool))
    assert score.adherence is None
    assert set(score.values.values()) == {None}
    assert "nothing" in score.measured[score.main]


@pytest.mark.parametrize("kind", OF_ANY_MAP)
def test_sizes_that_differ_are_refused(kind: str) -> None:
    with pytest.raises(ControlNetError, match="one size"):
        metric_of(kind).compare(SCENES[kind][:-1], SCENES[kind])


@pytest.mark.parametrize("kind", OF_ANY_MAP)
@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (11, 11), (12, 200)])
def test_any_size_has_a_score(kind: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    found, wanted = (rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(2))
    score = metric_of(kind).compare(found, wanted)
    assert score.adherence is not None
    assert 0 <= score.adherence <= 1
    assert all(number is None or np.isfinite(number) for number in score.values.values())
    assert metric_of(kind).compare(wanted, wanted).adherence == pytest.approx(1)


# which metric


def test_every_preprocessor_has_a_kind() -> None:
    registry = discover(None)
    specs = [entry.spec for entry in registry.entries]
    specs += [one.spec for one in registry.disabled.values() if one.spec is not None]
    kinds = {spec.id: kind_of(spec) for spec in specs}  # type: ignore[arg-type]
    assert {name for name, kind in kinds.items() if kind == UNKNOWN} == {"none"}
    assert set(kinds.values()) <= set(METRICS)
    chosen = (
        "canny",
        "depth_zoe",
        "normal_bae",
        "oneformer_coco",
        "mobile_sam",
        "openpose",
        "tile_resample",
        "shuffle",
    )
    expected = ("lines", "depth", "normals", "segments", "regions", "poses", "pictures", "colours")
    assert tuple(kinds[name] for name in chosen) == expected


def test_a_kind_that_is_not_known_says_so() -> None:
    score = metric_of("tea leaves").compare(maps.smooth(), maps.noisy(maps.smooth()))
    assert score.kind == "unknown"
    assert "not known" in score.measured["mean_difference"]
