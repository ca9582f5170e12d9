"""The demo world: repeatable, and each picture agrees with its own mask, prompt and maps."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from standalone.demo.controls import TYPES, control_map, outline, scribble, segmentation
from standalone.demo.shapes import COLOURS, PALETTE, SHAPES, pictures


def test_same_seed_same_pictures() -> None:
    first, again, other = pictures(6, 3), pictures(6, 3), pictures(6, 4)
    assert all(np.array_equal(a.image, b.image) and a.prompt == b.prompt for a, b in zip(first, again, strict=True))
    assert any(a.prompt != b.prompt for a, b in zip(first, other, strict=True))


def test_picture_holds_what_its_prompt_says() -> None:
    for picture in pictures(60, 1):
        core = cv2.erode(picture.mask, np.ones((5, 5)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        rest = cv2.dilate(picture.mask, np.ones((5, 5))) == 0
        assert (picture.image[core] == COLOURS[picture.colour]).all()
        assert (picture.image[rest] == COLOURS[picture.background]).all()
        assert picture.colour != picture.background
        assert picture.prompt == f"a {picture.colour} {picture.shape} on a {picture.background} background"


def test_every_shape_and_colour_turns_up() -> None:
    drawn = pictures(300, 2)
    assert {picture.shape for picture in drawn} == set(SHAPES)
    assert {picture.colour for picture in drawn} == set(COLOURS) == {picture.background for picture in drawn}


@pytest.mark.parametrize("kind", TYPES)
def test_maps_follow_the_outline(kind: str) -> None:
    """The border of the mask is where the map's border is: within 8 px for the hand's wobble, 2 px for the others."""
    rng = random.Random(0)
    for picture in pictures(20, 5):
        made = control_map(kind, picture, rng)
        assert made.shape == (128, 128, 3)
        assert made.dtype == np.uint8
        drawn = made.max(2) > 127
        border = cv2.morphologyEx(picture.mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        if kind == "seg":
            drawn = cv2.morphologyEx(drawn.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        distance = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert drawn.sum() > 60
        assert distance[drawn].max() <= (8 if kind == "scribble" else 2)


def test_segmentation_paints_the_class() -> None:
    picture = pictures(1, 9)[0]
    painted = segmentation(picture)
    assert (painted[picture.mask > 0] == PALETTE[picture.shape]).all()
    assert not painted[picture.mask == 0].any()


def test_scribbles_differ_and_are_thicker_than_outlines() -> None:
    rng = random.Random(1)
    picture = pictures(1, 9)[0]
    made = [scribble(picture, rng) for _ in range(8)]
    assert any(not np.array_equal(made[0], other) for other in made[1:])
    assert np.mean([(image > 0).sum() for image in made]) > 1.5 * (outline(picture) > 0).sum()
