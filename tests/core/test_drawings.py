"""What a picture looks like: drawings, maps and photographs as they come from canvases, scanners and JPEGs."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lib_controlnet.core.drawings import Look, look_of

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).resolve().parents[2]


def lines(paper: int, pen: int, *, smooth: bool = False, size: int = 256, width: int = 3) -> Pixels:
    picture = np.full((size, size, 3), paper, np.uint8)
    kind = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.circle(picture, (size // 2, size // 2), size // 3, (pen,) * 3, width, kind)
    cv2.line(picture, (0, 0), (size - 1, size // 2), (pen,) * 3, width, kind)
    return picture


def as_jpeg(picture: Pixels, quality: int = 80) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize("size", [64, 256, 1024])
def test_lines_are_told_by_their_paper(smooth: bool, jpeg: bool, size: int) -> None:
    for paper, pen, look in ((0, 255, Look.light_lines), (255, 0, Look.dark_lines), (240, 30, Look.dark_lines)):
        picture = lines(paper, pen, smooth=smooth, size=size, width=max(1, size // 100))
        assert look_of(as_jpeg(picture) if jpeg else picture) is look


def test_one_thin_stroke_is_no_empty_picture() -> None:
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[301, 200:202] = 255
    assert look_of(picture) is Look.light_lines


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.integers(1, 70), st.integers(1, 70))
def test_one_colour_is_empty_whatever_it_is(colour: tuple[int, int, int], height: int, width: int) -> None:
    assert look_of(np.full((height, width, 3), colour, np.uint8)) is Look.empty


def test_flat_colours_are_no_photograph() -> None:
    picture = np.full((200, 200, 3), (6, 230, 230), np.uint8)
    picture[120:] = (4, 250, 7)
    picture[60:130, 40:90] = (180, 120, 120)
    assert look_of(picture) is Look.flat


def test_photographs() -> None:
    rng = np.random.default_rng(1)
    noise = cv2.GaussianBlur(rng.integers(0, 255, (300, 200, 3)).astype(np.uint8), (0, 0), 9)
    stretched = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    assert look_of(stretched) is Look.photograph
    docs = np.asarray(Image.open(ROOT / "docs" / "preprocessors" / "_input.jpg").convert("RGB"))
    assert look_of(docs) is Look.photograph


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_turning_a_picture_over_turns_its_look_over(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.choice(np.array([0, 255], np.uint8), (height, width, 1), p=[0.9, 0.1]).repeat(3, 2)
    other = {Look.light_lines: Look.dark_lines, Look.dark_lines: Look.light_lines}
    look = look_of(picture)
    assert look_of(255 - picture) is other.get(look, look)
