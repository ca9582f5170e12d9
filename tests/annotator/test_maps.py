"""Each algorithm against its definition, written out here with OpenCV's or NumPy's primitives.

All were also run beside sd-webui-controlnet's own functions (2024-07-25) on eight pictures, three resolutions and five
settings each, under OpenCV 4.8 with NumPy 1.26 and OpenCV 5.0 with NumPy 2.4: equal bit for bit, but for
lineart_standard since its blur is a product of matrices.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from annotator.sd_controlnet.entries.tile_variants import guided_filter
from annotator.sd_controlnet.images import resize_and_pad, to_rgb
from annotator.sd_controlnet.registry import Registry, discover
from annotator.sd_controlnet.spec import AnnotatorError, Runtime
from annotator.sd_controlnet.wide_blur import wide_blur

EFFECTS = ("reference", "tile_colorfix", "inpaint_only", "recolor")
REGISTRY: Registry = discover(EFFECTS)
RESOLUTIONS = pytest.mark.parametrize("resolution", [64, 200, 512])


def run(id_: str, image: np.ndarray, *params: float, resolution: int = 512, **options: Any) -> np.ndarray:
    params = REGISTRY.get(id_).spec.resolve_params(*params)
    return REGISTRY.get(id_).load(Runtime())(image, resolution=resolution, params=params, **options)


def photograph(height: int = 150, width: int = 211, seed: int = 0) -> np.ndarray:
    """Smooth patches with fine noise: edges, flat parts, all channels different."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(height // 8 + 3, width // 8 + 3, 3)).astype(np.float32)
    patches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (patches * 70 + random.normal(size=(height, width, 3)) * 6 + 128).clip(0, 255).astype(np.uint8)


def padded(image: np.ndarray, resolution: int) -> tuple[np.ndarray, int, int]:
    """The peers' resize: short side = resolution, cubic up and area down, edge-padded to 64; and the real size."""
    factor = resolution / min(image.shape[:2])
    height, width = (int(np.round(side * factor)) for side in image.shape[:2])
    method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    image = cv2.resize(image, (width, height), interpolation=method)
    rows = np.minimum(np.arange(-(-height // 64) * 64), height - 1)
    columns = np.minimum(np.arange(-(-width // 64) * 64), width - 1)
    return image[rows][:, columns].copy(), height, width


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


# --- common -------------------------------------------------------------------------------------------------------


def test_alpha_over_white_is_truncated() -> None:
    image = np.array([[[0, 100, 255, 0], [0, 100, 255, 255], [0, 100, 255, 128], [10, 20, 30, 1]]], np.uint8)
    # 128/255 = 0.50196: 0 -> 126.99, 100 -> 177.2; 1/255: 10 -> 254.04
    assert to_rgb(image).tolist() == [[[255, 255, 255], [0, 100, 255], [126, 177, 255], [254, 254, 254]]]


@RESOLUTIONS
def test_resize_and_pad(resolution: int) -> None:
    image = photograph()
    expected, height, width = padded(image, resolution)
    found, cut = resize_and_pad(image, resolution)
    assert np.array_equal(found, expected)
    assert found.shape[0] % 64 == found.shape[1] % 64 == 0
    assert min(height, width) == resolution
    assert np.array_equal(cut(found), expected[:height, :width])


def test_sizes_round_half_to_even() -> None:
    # 64 * 5/128 = 2.5 -> 2 is seen as 64 * 53/128 = 26.5 -> 26 and 64 * 55/128 = 27.5 -> 28
    assert resize_and_pad(np.zeros((128, 341, 3), np.uint8), 64)[1](np.zeros((64, 192, 3), np.uint8)).shape == (
        64,
        170,
        3,
    )
    assert resize_and_pad(np.zeros((128, 343, 3), np.uint8), 64)[1](np.zeros((64, 192, 3), np.uint8)).shape == (
        64,
        172,
        3,
    )


# --- edges and lines ----------------------------------------------------------------------------------------------


@RESOLUTIONS
@pytest.mark.parametrize("thresholds", [(100.0, 200.0), (1.0, 1.0), (30.0, 60.0), (255.0, 255.0)])
def test_canny(resolution: int, thresholds: tuple[float, float]) -> None:
    image, height, width = padded(photograph(), resolution)
    expected = cv2.Canny(image, *thresholds)[:height, :width]
    found = run("canny", photograph(), *thresholds, resolution=resolution)
    assert np.array_equal(found, rgb(expected))


def test_canny_sees_edges_between_colours_of_one_grey() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0] = image[:, 32:, 1] = 200
    assert run("canny", image, resolution=64).any()


@RESOLUTIONS
@pytest.mark.parametrize("threshold", [1.0, 32.0, 63.99])
def test_scribble_xdog(resolution: int, threshold: float) -> None:
    picture = photograph()
    cv2.circle(picture, (90, 70), 40, (0, 20, 10), 5)
    image, height, width = padded(picture, resolution)
    colours = image.astype(np.float32)
    difference = cv2.GaussianBlur(colours, (41, 41), 5) - cv2.GaussianBlur(colours, (5, 5), 0.5)
    inverse = (255 - difference.min(axis=2)).clip(0, 255).astype(np.uint8)
    doubled = (2 * (255 - inverse.astype(int))) & 255
    expected = np.where(doubled > threshold, 255, 0).astype(np.uint8)[:height, :width]
    assert 0.001 < (expected > 0).mean() < 0.9
    assert np.array_equal(run("scribble_xdog", picture, threshold, resolution=resolution), rgb(expected))


def test_scribble_xdog_wraps_where_the_contrast_is_greatest() -> None:
    image = np.full((64, 64, 3), 255, np.uint8)
    image[31:33, 31:33] = 0  # 196 darker than the wide blur: doubled, 392 - 256 = 136, a line
    assert run("scribble_xdog", image, 32, resolution=64)[31, 31, 0] == 255
    image[31:33, 31:33] = 80  # 135: 270 - 256 = 14, none
    assert run("scribble_xdog", image, 32, resolution=64)[31, 31, 0] == 0
    image[31:33, 31:33] = 200  # 42: 84, a line
    assert run("scribble_xdog", image, 32, resolution=64)[31, 31, 0] == 255


@RESOLUTIONS
def test_lineart_standard(resolution: int) -> None:
    image, height, width = padded(photograph(), resolution)
    colours = image.astype(np.float32)
    intensity = (cv2.GaussianBlur(colours, (49, 49), 6) - colours).min(axis=2).clip(0, 255)
    scale = max(16, np.median(intensity[intensity > 8]))
    expected = (intensity / scale * np.float32(127)).clip(0, 255).astype(np.uint8)[:height, :width]
    assert expected.max() > 150
    found = run("lineart_standard", photograph(), resolution=resolution)
    # The blur is a product of matrices, whose sums are rounded in another order than OpenCV's.
    different = np.abs(found.astype(int) - rgb(expected))
    assert different.max() <= 1
    assert (different > 0).mean() < 1e-4


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 200), (64, 64), (129, 65)])
@pytest.mark.parametrize("sigma", [4.0, 6.0])
def test_the_wide_blur_is_opencvs(height: int, width: int, sigma: float) -> None:
    plane = photograph(height, width)[:, :, 0].astype(np.float32)
    expected = cv2.GaussianBlur(plane, (0, 0), sigma)
    assert np.abs(wide_blur(plane, sigma) - expected).max() < 255 * 2e-6


def test_lineart_standard_of_a_drawing_is_its_lines_in_white() -> None:
    image = np.full((256, 256, 3), 255, np.uint8)
    cv2.circle(image, (128, 128), 80, (0, 0, 0), 2)
    result = run("lineart_standard", image, resolution=256)
    assert result[128, 208].min() >= 120
    assert result[128, 128].max() == result[0, 0].max() == 0


def test_lineart_standard_of_nothing_is_nothing() -> None:
    with np.errstate(all="raise"):
        assert not run("lineart_standard", np.full((30, 40, 3), 200, np.uint8)).any()


# --- binarization -------------------------------------------------------------------------------------------------


@RESOLUTIONS
@pytest.mark.parametrize("limit", [0.0, 127.0, 127.5, 254.99, 255.0])
def test_threshold(resolution: int, limit: float) -> None:
    image, height, width = padded(photograph(), resolution)
    expected = np.where(image.min(axis=2) > limit, 255, 0).astype(np.uint8)[:height, :width]
    assert np.array_equal(run("threshold", photograph(), limit, resolution=resolution), rgb(expected))


def test_invert_keeps_the_size() -> None:
    image = photograph(33, 77)
    assert np.array_equal(run("invert", image), ~image)


@RESOLUTIONS
@pytest.mark.parametrize("limit", [1.0, 100.0, 254.0])
def test_binary(resolution: int, limit: float) -> None:
    image, height, width = padded(photograph(), resolution)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:height, :width]
    found = run("binary", photograph(), limit, resolution=resolution)
    assert np.array_equal(found, rgb(np.where(grey > limit, 255, 0)))


@pytest.mark.parametrize("limit", [0.0, 255.0])
def test_binary_by_otsu_splits_where_the_classes_differ_most(limit: float) -> None:
    image = photograph(128, 128)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    def between(split: int) -> float:
        dark, bright = grey[grey <= split], grey[grey > split]
        return dark.size * bright.size * (dark.mean() - bright.mean()) ** 2 if dark.size and bright.size else 0.0

    best = max(range(256), key=between)
    assert np.array_equal(run("binary", image, limit, resolution=128), rgb(np.where(grey > best, 255, 0)))


@RESOLUTIONS
def test_scribble_is_white_where_a_drawing_is_dark(resolution: int) -> None:
    drawing = np.full((150, 211, 3), 255, np.uint8)
    cv2.circle(drawing, (90, 70), 40, (0, 0, 0), 5)
    cv2.line(drawing, (0, 0), (200, 140), (255, 40, 40), 3)
    image, height, width = padded(drawing, resolution)
    expected = np.where(image.min(axis=2) < 127, 255, 0)[:height, :width]
    assert 0.02 < (expected > 0).mean() < 0.2
    assert np.array_equal(run("scribble", drawing, resolution=resolution), rgb(expected))


@RESOLUTIONS
@pytest.mark.parametrize("thresholds", [(64.0, 128.0), (1.0, 30.0)])
def test_pyracanny(resolution: int, thresholds: tuple[float, float]) -> None:
    image, height, width = padded(photograph(), resolution)
    total = np.zeros((1, 1, 3))
    for tenths in range(2, 11):
        size = (int(image.shape[1] * (tenths / 10)), int(image.shape[0] * (tenths / 10)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        edges = np.stack([cv2.Canny(small[:, :, c].copy(), *thresholds) for c in range(3)], axis=2) / 255
        total = 0.75 * cv2.resize(total, size) + 0.25 * edges if tenths > 2 else edges
    grey = total.sum(axis=2)
    low, high = np.percentile(grey, [1, 99])
    expected = ((grey - low) / (high - low) * 255).clip(0, 255)[:height, :width]
    found = run("pyracanny", photograph(), *thresholds, resolution=resolution)
    # float64 here: the truncation may fall on the other side
    assert np.abs(found[:, :, 0] - np.floor(expected)).max() <= 1
    assert (found[:, :, 0] == np.floor(expected)).mean() > 0.99
    assert found.max() == 255


def test_pyracanny_of_hardly_any_edge() -> None:
    image = np.full((256, 256, 3), 255, np.uint8)
    assert not run("pyracanny", image, resolution=256).any()
    image[100, 100] = 0
    assert run("pyracanny", image, resolution=256).max() == 255


# --- blurs and samples --------------------------------------------------------------------------------------------


@RESOLUTIONS
@pytest.mark.parametrize("sigma", [0.01, 2.5, 9.0])
def test_blur_gaussian(resolution: int, sigma: float) -> None:
    image, height, width = padded(photograph(), resolution)
    side = int(round(6 * sigma) + 1) | 1
    expected = cv2.GaussianBlur(image[:height, :width].copy(), (side, side), sigma)
    found = run("blur_gaussian", photograph(), sigma, resolution=resolution)
    assert np.array_equal(found, expected)


def test_blur_is_the_gaussian_of_its_sigma() -> None:
    image = np.zeros((129, 129, 3), np.uint8)
    image[:, 64:] = 255
    edge = run("blur_gaussian", image, 9.0, resolution=129)[64, :, 0] / 255
    assert edge[64 - 9] == pytest.approx(0.16, abs=0.02)  # one sigma below the middle
    assert edge[64 + 9] == pytest.approx(0.84, abs=0.02)


@pytest.mark.parametrize(("rate", "size"), [(1.0, (150, 211)), (1.09, (150, 211)), (1.1, (136, 191)), (8.0, (18, 26))])
def test_tile_resample(rate: float, size: tuple[int, int]) -> None:
    found = run("tile_resample", photograph(), rate)
    assert found.shape[:2] == size
    assert np.array_equal(found, cv2.resize(photograph(), size[::-1], interpolation=cv2.INTER_AREA))


def test_tile_resample_averages() -> None:
    found = run("tile_resample", photograph(96, 64), 2.0)
    assert np.abs(found - photograph(96, 64).reshape(48, 2, 32, 2, 3).mean(axis=(1, 3))).max() <= 0.5


@RESOLUTIONS
def test_colour_grid_is_a_mosaic(resolution: int) -> None:
    found = run("color", photograph(), resolution=resolution)
    image = cv2.resize(photograph(), found.shape[1::-1], interpolation=cv2.INTER_AREA)
    rows, columns = (side // 64 for side in found.shape[:2])
    mosaic = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_CUBIC)
    y = np.arange(found.shape[0]) * rows // found.shape[0]
    x = np.arange(found.shape[1]) * columns // found.shape[1]
    assert min(found.shape[:2]) == resolution
    assert np.array_equal(found, mosaic[y][:, x])


@pytest.mark.parametrize(("levels", "size"), [(1, (192, 256)), (3, (192, 256)), (10, (128, 128))])
def test_tile_pyramid(levels: int, size: tuple[int, int]) -> None:
    image = photograph(170, 230)
    found = run("tile_pyramid", image, levels)
    if levels == 10:  # 192 has 7 halves: one pixel, doubled seven times
        assert found.shape == (128, 256, 3)
        return
    assert found.shape[:2] == size
    expected = cv2.resize(image, (size[1] >> levels, size[0] >> levels), interpolation=cv2.INTER_AREA)
    for _ in range(levels):
        expected = cv2.pyrUp(expected)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("scale", "blur"), [(1.0, 2.0), (2.5, 5.5), (8.0, 10.0)])
def test_tile_ttplanet_simple(scale: float, blur: float) -> None:
    image = photograph()
    small = cv2.resize(image, (int(211 / scale), int(150 / scale)), interpolation=cv2.INTER_AREA)
    grown = cv2.resize(small, (211, 150), interpolation=cv2.INTER_LANCZOS4)
    side = int(blur) + 1 - int(blur) % 2
    expected = cv2.GaussianBlur(grown, (side, side), sigmaX=blur / 2)
    assert np.array_equal(run("tile_ttplanet_simple", image, scale, blur), expected)


def literal_guided_filter(image: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """K. He's guided filter of an (H, W, 3) picture in 0..1 by itself, window by window, in float64."""
    height, width = image.shape[:2]
    mirror = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    slopes, offsets = np.empty((height, width, 3, 3)), np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            window = mirror[y : y + 2 * radius + 1, x : x + 2 * radius + 1].reshape(-1, 3)
            mean = window.mean(axis=0)
            covariance = (window - mean).T @ (window - mean) / len(window)
            slopes[y, x] = np.linalg.solve(covariance + epsilon * np.eye(3), covariance)
            offsets[y, x] = mean - slopes[y, x].T @ mean
    side = (2 * radius + 1, 2 * radius + 1)
    slopes = np.stack([cv2.blur(slopes[:, :, :, c].copy(), side) for c in range(3)], axis=3)
    return np.einsum("yxij,yxi->yxj", slopes, image) + cv2.blur(offsets, side)


def test_tile_ttplanet_guided_filter() -> None:
    image = photograph(48, 60)
    blurred = cv2.GaussianBlur(image, (3, 3), sigmaX=1.0)
    expected = (literal_guided_filter(blurred / 255, 7, 0.01) * 255).clip(0, 255)
    found = run("tile_ttplanet_gf", image, 1.0, 2.0)
    assert np.abs(found - np.floor(expected)).max() <= 1
    assert (found == np.floor(expected)).mean() > 0.98


def test_guided_filter_by_strips_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(90, 40)
    monkeypatch.setattr(guided_filter, "_STRIP", 16)
    strips = guided_filter.fast_guided_filter(image, 7, 0.01, 1.0)
    monkeypatch.setattr(guided_filter, "_STRIP", 1000)
    assert np.array_equal(strips, guided_filter.fast_guided_filter(image, 7, 0.01, 1.0))


def test_tile_ttplanet_guided_filter_at_a_smaller_scale_keeps_edges() -> None:
    image = photograph(64, 64)
    image[:, 32:] //= 4
    found = run("tile_ttplanet_gf", image, 2.0, 2.0)
    assert found.shape == image.shape
    edge = found[:, 26:38].astype(float).mean(axis=(0, 2))
    assert edge[0] - edge[-1] > 60


def test_shuffle_moves_colours_along_a_smooth_flow() -> None:
    image = photograph(512, 600)
    found = run("shuffle", image, rng_seed=7)
    random = np.random.RandomState(7)

    def noise() -> np.ndarray:
        coarse = random.uniform(size=(4, 4))
        smooth = cv2.resize(coarse, (600 + 512, 512 + 512), interpolation=cv2.INTER_CUBIC)[256:768, 256:856]
        return (smooth - smooth.min()) / (smooth - smooth.min()).max()

    x, y = (noise() * 599).astype(np.float32), (noise() * 511).astype(np.float32)
    assert np.array_equal(found, cv2.remap(image, x, y, cv2.INTER_LINEAR))
    assert (x.min(), x.max(), y.min(), y.max()) == (0, 599, 0, 511)


def test_shuffle_follows_numpys_global_seed_as_the_peers_did() -> None:
    np.random.seed(1234)
    first = np.random.uniform(0, 1, (4, 4, 1))[:, :, 0]
    state = np.random.RandomState(1234).uniform(0, 1, (4, 4))
    assert np.array_equal(first, state)


def test_a_picture_too_narrow_to_shuffle() -> None:
    with pytest.raises(AnnotatorError, match="too narrow"):
        run("shuffle", np.zeros((10, 1000, 3), np.uint8))


# --- light --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 1.357, 2.0])
def test_recolor(gamma: float) -> None:
    image = photograph(40, 50)
    for id_, light in (
        ("recolor_luminance", cv2.cvtColor(image, cv2.COLOR_BGR2LAB)[:, :, 0]),
        ("recolor_intensity", image.max(axis=2)),
    ):
        curve = (light.astype(np.float32) / 255.0) ** gamma
        expected = (curve * 255.0).clip(0, 255).astype(np.uint8)
        assert np.array_equal(run(id_, image, gamma), rgb(expected))


def test_recolor_luminance_takes_red_for_blue() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    # CIELAB's L of pure blue is 32.3, of pure red 53.2; scaled by 2.55
    assert abs(int(run("recolor_luminance", red)[0, 0, 0]) - round(32.3 * 2.55)) <= 1


# --- pass-through -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", ["none", "reference_only", "reference_adain", "reference_adain+attn", "tile_colorfix"])
def test_the_picture_itself(id_: str) -> None:
    assert np.array_equal(run(id_, photograph(20, 33)), photograph(20, 33))


@pytest.mark.parametrize("id_", ["inpaint", "inpaint_only"])
def test_inpaint_appends_the_mask(id_: str) -> None:
    image, mask = photograph(20, 33), np.zeros((20, 33), np.uint8)
    mask[3:9, 4:8] = 255
    mask[0, 0] = 77
    found = run(id_, image, mask=mask)
    assert np.array_equal(found[:, :, :3], image)
    assert np.array_equal(found[:, :, 3], mask)
    assert np.array_equal(run(id_, np.dstack([image, mask])), found)


def test_a_mask_of_its_own_wins_over_alpha() -> None:
    image, mask = np.dstack([photograph(8, 8), np.full((8, 8), 255, np.uint8)]), np.zeros((8, 8), np.uint8)
    assert not run("inpaint", image, mask=mask)[:, :, 3].any()
