"""Resize modes: geometry and colours by hand, thinning against a literal implementation, drawings against maps that
sd-webui-controlnet's own function made from the same drawings."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib_controlnet.core import resize
from lib_controlnet.core.errors import UnitError
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.resize import distinct_colours, fit_map, high_quality_resize, pixel_perfect_resolution

JUST, CROP, FILL = ResizeMode.just_resize, ResizeMode.crop_and_resize, ResizeMode.resize_and_fill


def drawing(text: str) -> np.ndarray:
    return np.array([[255 * (mark == "#") for mark in row] for row in text.split()], np.uint8)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, np.uint8)[:, :, None], 3, axis=2)


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


# --- geometry -----------------------------------------------------------------------------------------------------


LABELS = np.array([[10, 20, 30, 40], [50, 60, 70, 80]])


def test_just_resize_stretches() -> None:
    fitted = fit_map(rgb(LABELS), 4, 4, JUST)
    assert fitted[:, :, 0].tolist() == [[10, 20, 30, 40]] * 2 + [[50, 60, 70, 80]] * 2


def test_crop_cuts_the_centre() -> None:
    # 2x4 grows by 2 to 4x8; of 8 columns the middle 4 stay
    fitted = fit_map(rgb(LABELS), 4, 4, CROP)
    assert fitted[:, :, 1].tolist() == [[20, 20, 30, 30]] * 2 + [[60, 60, 70, 70]] * 2


def test_crop_of_an_odd_remainder_cuts_less_at_the_start() -> None:
    fitted = fit_map(rgb([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]), 2, 2, CROP)
    assert fitted[:, :, 0].tolist() == [[2, 3], [7, 8]]


def test_fill_pads_with_the_median_of_the_border() -> None:
    # the border has every value once, the corners twice: 10 10 20 30 40 40 50 50 60 70 80 80, and row lines again
    # 10 20 30 40 / 50 60 70 80 (rows), 10 50 / 40 80 (columns): 10 10 20 30 40 40 50 50 60 70 80 80 -> 45
    fitted = fit_map(rgb(LABELS), 4, 4, FILL)
    assert fitted[:, :, 2].tolist() == [[45] * 4, [10, 20, 30, 40], [50, 60, 70, 80], [45] * 4]


def test_fill_colour_is_per_channel_and_truncated() -> None:
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = (0, 10, 255), (5, 10, 0)
    # lines: the row twice, each column once: every pixel three times; medians 2.5, 10, 127.5
    fitted = fit_map(image, 2, 3, FILL)
    assert fitted[0, 0].tolist() == fitted[2, 1].tolist() == [2, 10, 127]
    assert fitted[1].tolist() == image[0].tolist()


def test_fill_with_an_odd_remainder_pads_less_at_the_start() -> None:
    fitted = fit_map(rgb([[1, 2, 3]]), 3, 4, FILL)
    assert fitted[:, :, 0].tolist() == [[2] * 3, [1, 2, 3], [2] * 3, [2] * 3]


@pytest.mark.parametrize(("rows", "filled"), [(5, 2), (7, 4)])
def test_sizes_round_half_to_even(rows: int, filled: int) -> None:
    # k = 0.5: 5 rows would be 2.5, 7 would be 3.5
    inside = rgb(np.arange(rows * 16).reshape(rows, 16) + 1)
    fitted = fit_map(inside, 8, 10, FILL)
    padding = fitted[0, 0, 0]
    assert sum(bool((row != padding).any()) for row in fitted[:, :, 0]) == filled


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("size", [(64, 64), (96, 40), (40, 96), (8, 8)])
@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (3, 200), (37, 53)])
def test_every_mode_gives_the_size(mode: ResizeMode, size: tuple[int, int], shape: tuple[int, int]) -> None:
    width, height = size
    for image in (
        photograph(*shape),
        rgb(np.full(shape, 7)),
        np.dstack([photograph(*shape), np.full(shape, 255, "u1")]),
    ):
        before = image.copy()
        fitted = fit_map(image, width, height, mode)
        assert fitted.shape == (height, width, image.shape[2])
        assert fitted.dtype == (np.uint8 if image.shape[2] == 3 else np.float32)
        assert fitted.flags.c_contiguous
        assert np.array_equal(image, before)


def test_the_same_size_changes_nothing() -> None:
    image = photograph(16, 24)
    for mode in ResizeMode:
        assert np.array_equal(fit_map(image, 24, 16, mode), image)


def test_grey_maps_become_three_channels() -> None:
    grey = photograph(9, 9)[:, :, 0]
    expected = fit_map(rgb(grey), 16, 16, CROP)
    assert np.array_equal(fit_map(grey, 16, 16, CROP), expected)
    assert np.array_equal(fit_map(grey[:, :, None], 16, 16, CROP), expected)


def test_a_view_is_read_as_its_copy() -> None:
    image = photograph(20, 30)[::-1, ::2]
    assert np.array_equal(fit_map(image, 40, 40, FILL), fit_map(image.copy(), 40, 40, FILL))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, "u1")],
)
def test_other_shapes_and_types_are_refused(image: np.ndarray) -> None:
    with pytest.raises(UnitError, match="8-bit picture"):
        fit_map(image, 8, 8, JUST)


def test_a_map_too_narrow_to_crop_is_refused_before_the_memory_is_asked_for() -> None:
    with pytest.raises(UnitError, match="5000x1 pixels cannot be cropped"):
        fit_map(np.zeros((1, 5000, 3), np.uint8), 512, 512, CROP)
    assert fit_map(np.zeros((1, 5000, 3), np.uint8), 512, 512, FILL).shape == (512, 512, 3)


# --- interpolation ------------------------------------------------------------------------------------------------


def cubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic interpolation (Keys, a = -0.75) with pixel centres at halves and repeated borders, as matrices."""

    def matrix(old: int, new: int) -> np.ndarray:
        weights = np.zeros((new, old))
        for target in range(new):
            centre = (target + 0.5) * old / new - 0.5
            for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
                t = abs(centre - tap)
                near = 1.25 * t**3 - 2.25 * t**2 + 1
                far = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
                weights[target, min(max(tap, 0), old - 1)] += near if t <= 1 else far
        return weights

    rows, columns = matrix(image.shape[0], size[1]), matrix(image.shape[1], size[0])
    return np.einsum("ij,jkc,lk->ilc", rows, image.astype(np.float64), columns)


def test_pictures_grow_by_cubic_interpolation() -> None:
    image = photograph(24, 31)
    expected = cubic(image, (50, 47)).clip(0, 255)
    assert np.abs(high_quality_resize(image, (50, 47)) - expected).max() <= 1


def test_pictures_shrink_by_area() -> None:
    image = photograph(30, 40)
    expected = image.reshape(10, 3, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(high_quality_resize(image, (10, 10)) - expected).max() <= 0.5


def test_labels_keep_their_colours_in_both_directions() -> None:
    labels = np.random.default_rng(0).integers(0, 150, (20, 20, 1), dtype=np.uint8) * np.array([1, 0, 1], np.uint8)
    assert np.array_equal(high_quality_resize(labels, (40, 60)), labels.repeat(3, axis=0).repeat(2, axis=1))
    assert np.array_equal(high_quality_resize(labels, (10, 5)), labels[::4, ::2])


def test_two_hundred_colours_are_a_picture() -> None:
    for colours, kept in ((199, True), (200, False)):
        image = rgb(np.arange(400).reshape(20, 20) % colours)
        grown = high_quality_resize(image, (37, 41))
        assert np.array_equal(grown, cv2.resize(image, (37, 41), interpolation=cv2.INTER_NEAREST)) is kept


def test_one_colour_stays_one_colour() -> None:
    assert np.array_equal(high_quality_resize(rgb(np.full((3, 5), 77)), (31, 17)), rgb(np.full((17, 31), 77)))


def test_two_middle_greys_are_no_drawing() -> None:
    grown = high_quality_resize(rgb([[16, 240], [16, 240]]), (16, 16))
    assert len(np.unique(grown)) > 2


def test_alpha_follows_the_colours_interpolation_and_is_black_or_white() -> None:
    labels = np.array([[1, 2], [3, 4]], np.uint8)
    alpha = np.array([[0, 127], [128, 255]], np.uint8)
    grown = fit_map(np.dstack([rgb(labels), alpha]), 4, 4, JUST)
    assert grown[:, :, 3].tolist() == [[0, 0, 0, 0]] * 2 + [[255.0] * 4] * 2
    assert np.array_equal(grown[:, :, 0], labels.repeat(2, axis=0).repeat(2, axis=1))


def test_alpha_is_made_black_or_white_without_a_resize_too() -> None:
    alpha = np.array([[0, 127], [128, 255]], np.uint8)
    fitted = fit_map(np.dstack([photograph(2, 2), alpha]), 2, 2, CROP)
    assert fitted[:, :, 3].tolist() == [[0, 0], [255, 255]]


def test_padding_of_an_inpaint_map_is_to_be_painted() -> None:
    image = np.dstack([photograph(4, 8), np.zeros((4, 8), np.uint8)])
    fitted = fit_map(image, 8, 8, FILL)
    assert fitted[:, :, 3].tolist() == [[255.0] * 8] * 2 + [[0.0] * 8] * 4 + [[255.0] * 8] * 2


def test_colours_of_an_inpaint_map_are_not_rounded() -> None:
    image = np.dstack([photograph(15, 15), np.zeros((15, 15), np.uint8)])
    grown = fit_map(image, 40, 40, JUST)[:, :, :3]
    assert np.abs(grown - cubic(image[:, :, :3], (40, 40))).max() < 1e-3
    assert np.abs(grown - np.rint(grown)).max() > 0.1


# --- drawings -----------------------------------------------------------------------------------------------------

LINES = drawing("""
    ..........
    .######...
    .#....#...
    .#....#.#.
    .#....##..
    .######...
    ....#.#...
    ...#...#..
    ..#.....#.
    ..........""")

# Made by `detectmap_proc` of sd-webui-controlnet 1.1.455 from LINES, with OpenCV 5.0.
GROWN_LINES = """
    ....................
    ....................
    .....######.........
    ..###......##.......
    ..#.........#.......
    ..#.........#.......
    ..#.........#.......
    ..#.........#.......
    ..#..........###....
    ..#..........#......
    ..#####....##.......
    .......####.#.......
    ........#...#.......
    ........#....#......
    .......#......#.....
    ......#........#....
    ....................
    ....................
    ....................
    ...................."""
CROPPED_LINES = """
    ................
    ................
    ................
    ###########.....
    ...........#....
    ...........#....
    ...........#....
    ...........#....
    ...........#...#
    ...........#...#
    ...........####.
    ...........#....
    ...........#....
    ############....
    ......#....#....
    ......#....#....
    ......#.....#...
    .....#......#...
    ....#........##.
    ...#...........#
    .##............#
    ................
    ................
    ................"""
FILLED_LINES = """
    ........................
    ........................
    ......########..........
    ......#.......#.........
    ......#.......#.........
    ......#.......#.........
    ......#.......#.........
    ......#.......###.......
    ......#########.........
    ..........#...#.........
    ..........#...#.........
    ..........#....#........
    .........#......#.......
    .................#......
    ........................
    ........................"""


@pytest.mark.parametrize(
    ("width", "height", "mode", "expected"),
    [(20, 20, JUST, GROWN_LINES), (16, 24, CROP, CROPPED_LINES), (24, 16, FILL, FILLED_LINES)],
)
def test_one_pixel_lines_stay_one_pixel_wide(width: int, height: int, mode: ResizeMode, expected: str) -> None:
    assert np.array_equal(fit_map(rgb(LINES), width, height, mode), rgb(drawing(expected)))


AREAS = drawing("""
    ........
    .#####..
    .#####..
    .#####..
    .#####..
    .....##.
    ........""")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (
            (13, 11),
            """
            .............
            .............
            ..########...
            ..########...
            ..########...
            ..########...
            ..########...
            ..########...
            ........###..
            .........##..
            .............""",
        ),
        (
            (5, 5),
            """
            .....
            .###.
            .###.
            .###.
            .....""",
        ),
    ],
)
def test_filled_areas_stay_filled_and_black_and_white(size: tuple[int, int], expected: str) -> None:
    assert np.array_equal(high_quality_resize(rgb(AREAS), size), rgb(drawing(expected)))


def test_a_coloured_drawing_comes_back_in_black_and_white() -> None:
    red = rgb(AREAS) * np.array([1, 0, 0], np.uint8)
    grown = high_quality_resize(red, (26, 22))
    assert set(np.unique(grown)) == {0, 255}
    assert np.array_equal(grown[:, :, 0], grown[:, :, 2])


def test_canny_lines_are_still_one_pixel_wide_at_other_sizes() -> None:
    edges = rgb(cv2.Canny(cv2.GaussianBlur(photograph(128, 128), (0, 0), 2), 20, 40))

    def thick(lines: np.ndarray) -> float:
        """2x2 blocks for each pixel that is set; where lines meet, thinning leaves a few."""
        squares = lines[1:, 1:] & lines[:-1, 1:] & lines[1:, :-1] & lines[:-1, :-1]
        return float(squares.sum() / lines.sum())

    for size in ((256, 256), (200, 320), (400, 136)):
        lines = high_quality_resize(edges, size)[:, :, 0] > 0
        plain = cv2.resize(edges, size, interpolation=cv2.INTER_CUBIC)[:, :, 0] > 127
        assert thick(lines) < 0.03
        assert thick(plain) > 0.2


def literal_peel(image: np.ndarray, kernels: list[list[list[int]]]) -> tuple[np.ndarray, bool]:
    """Hit-or-miss removal pixel by pixel; what lies outside the picture fits anything."""
    image, changed = image.copy(), False
    for turns in range(4):
        for kernel in kernels:
            pattern = np.rot90(np.array(kernel), turns)
            hits: list[tuple[int, int]] = []
            for y, x in np.argwhere(image):
                fits = all(
                    pattern[dy + 1, dx + 1] == 0
                    or not (0 <= y + dy < image.shape[0] and 0 <= x + dx < image.shape[1])
                    or (pattern[dy + 1, dx + 1] > 0) == bool(image[y + dy, x + dx])
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                )
                if fits:
                    hits.append((y, x))
            for y, x in hits:
                image[y, x], changed = 0, True
    return image, changed


def literal_thin(image: np.ndarray, prune: bool) -> np.ndarray:
    thinning = [[[-1, -1, -1], [0, 1, 0], [1, 1, 1]], [[0, -1, -1], [1, 1, -1], [0, 1, 0]]]
    pruning = [[[-1, -1, -1], [-1, 1, -1], [0, 0, -1]], [[-1, -1, -1], [-1, 1, -1], [-1, 0, 0]]]
    for _ in range(32):
        image, changed = literal_peel(image, thinning)
        if not changed:
            break
    return literal_peel(image, pruning)[0] if prune else image


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(3, 12), st.integers(3, 12))), st.booleans())
def test_thinning_is_the_literal_one(bits: np.ndarray, prune: bool) -> None:
    image = np.where(bits, 255, 0).astype(np.uint8)
    before = image.copy()
    assert np.array_equal(resize.thin_lines(image, prune=prune), literal_thin(image, prune))
    assert np.array_equal(image, before)


def test_thinning_stops_after_32_layers() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[10:190, 10:190] = 255
    left = resize.thin_lines(image, prune=False)
    assert left[100, 100] == 255
    assert left[50:150, 50:150].all()


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 5)))
def test_ridges_are_the_literal_maxima(grey: np.ndarray) -> None:
    height, width = grey.shape

    def at(y: int, x: int) -> int:
        return int(grey[y, x]) if 0 <= y < height and 0 <= x < width else -1

    expected = np.zeros_like(grey)
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if at(y, x) >= max(at(y - dy, x - dx), at(y + dy, x + dx)):
                    expected[y, x] = grey[y, x]
    assert np.array_equal(resize._ridges(grey), expected)


# --- colours ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)), elements=st.sampled_from([0, 1, 255])
    ),
    st.integers(1, 30),
)
def test_distinct_colours(image: np.ndarray, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resize, "_FIRST_BLOCK", 7)
        patch.setattr(resize, "_BLOCK", 50)
        assert distinct_colours(image, limit) == min(
            limit, len({tuple(pixel) for pixel in image.reshape(-1, 3).tolist()})
        )


def test_distinct_colours_tells_channels_apart() -> None:
    image = np.zeros((1, 4, 3), np.uint8)
    image[0, 1, 0] = image[0, 2, 1] = image[0, 3, 2] = 255
    assert distinct_colours(image, 200) == 4


def test_counting_colours_takes_a_fifth_of_sorting_the_pixels() -> None:
    edges = rgb(cv2.Canny(photograph(1024, 1024), 30, 60))

    def seconds(work: Any) -> float:
        times: list[float] = []
        for _ in range(3):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        return min(times)

    def sort_pixels() -> int:  # how sd-webui-controlnet counts
        pixels = edges.reshape(-1, 3)
        pixels = pixels[np.lexsort(pixels.T)]
        return int(np.any(pixels[1:] != pixels[:-1], axis=1).sum()) + 1

    assert sort_pixels() == distinct_colours(edges, 200) == 2

    assert seconds(lambda: distinct_colours(edges, 200)) < 0.2 * seconds(sort_pixels)


# --- pixel perfect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target", "mode", "expected"),
    [
        ((600, 800), (512, 512), CROP, 512),  # 512/600 * 600
        ((600, 800), (512, 512), JUST, 512),
        ((600, 800), (512, 512), FILL, 384),  # 512/800 * 600
        ((800, 600), (512, 768), CROP, 768),  # 768/600 * 600
        ((800, 600), (512, 768), FILL, 384),  # 512/800 * 600
        ((3, 2), (4, 3), CROP, 3),
        ((2, 8), (5, 5), FILL, 1),  # 1.25
        ((4, 8), (5, 5), FILL, 2),  # 2.5, half to even
    ],
)
def test_pixel_perfect(shape: tuple[int, int], target: tuple[int, int], mode: ResizeMode, expected: int) -> None:
    for image in (np.zeros(shape, np.uint8), np.zeros((*shape, 4), np.uint8)):
        found = pixel_perfect_resolution(image, *target, mode)
        assert found == expected
        assert isinstance(found, int)
