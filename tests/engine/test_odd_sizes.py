"""Narrow and tiny pictures at every resolution: a map, or why there is none; pixel perfect never asks for 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.core.errors import PreprocessorError, PreprocessorFailure
from lib_controlnet.core.modes import ResizeMode
from lib_controlnet.core.resize import pixel_perfect_resolution
from lib_controlnet.engine.preprocess import PreprocessRunner

FOUND = discover()
WITHOUT_WEIGHTS = [entry.spec.id for entry in FOUND.entries if not entry.spec.weights and not entry.spec.libraries]
SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (1, 300), (300, 1), (4, 900), (700, 10), (64, 64)]


@pytest.fixture(scope="module")
def runner() -> PreprocessRunner:
    return PreprocessRunner(FOUND, Runtime)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
@pytest.mark.parametrize("colour", [0, 255, None])
def test_every_size_gives_a_map_or_a_reason(runner: PreprocessRunner, name: str, colour: int | None) -> None:
    for height, width in SIZES:
        image = np.full((height, width, 3), colour or 0, np.uint8)
        if colour is None:
            image = np.random.default_rng(1).integers(0, 256, image.shape, np.uint8)
        for resolution in (1, 2, 64):
            _run(runner, name, image, resolution)


def _run(runner: PreprocessRunner, name: str, image: np.ndarray, resolution: int) -> None:
    try:
        found = runner.run(name, image, pixel_perfect=resolution)
    except PreprocessorFailure as failure:
        pytest.fail(f"{name} at {resolution}, {image.shape}: {failure}")
    except PreprocessorError:
        return  # with its reason
    if found.map is not None:
        assert found.map.dtype == np.uint8
        assert min(found.map.shape[:2]) >= 1


@given(*(st.integers(1, 8192) for _ in range(2)), *(st.integers(1, 512) for _ in range(2)), st.sampled_from(ResizeMode))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_pixel_perfect_is_at_least_one_pixel(height: int, width: int, down: int, right: int, mode: ResizeMode) -> None:
    image = np.broadcast_to(np.uint8(0), (height, width))
    resolution = pixel_perfect_resolution(image, 8 * down, 8 * right, mode)
    factors = (8 * down / height, 8 * right / width)
    factor = min(factors) if mode is ResizeMode.resize_and_fill else max(factors)
    assert resolution == max(1, round(factor * min(height, width)))
