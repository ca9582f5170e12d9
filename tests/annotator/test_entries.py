"""What every preprocessor promises, asked of each entry there is: a new folder is covered without a new test."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotator.sd_controlnet.registry import Entry, Registry, discover
from annotator.sd_controlnet.spec import AnnotatorError, Detection, Detector, PreprocessorSpec, Runtime
from lib_controlnet.core.control_types import MODEL_WORDS, NO_MODEL, default_preprocessor

EFFECTS = ("reference", "tile_colorfix", "inpaint_only", "recolor")
REGISTRY: Registry = discover(EFFECTS)
ENTRIES = [
    pytest.param(entry, id=entry.spec.id)
    for entry in REGISTRY.entries
    if not entry.spec.weights and not entry.spec.by_model
]
every_entry = pytest.mark.parametrize("entry", ENTRIES)
"""Those that run as they are; test_networks.py has those with weights."""
every_specification = pytest.mark.parametrize(
    "spec",
    [entry.spec for entry in REGISTRY.entries] + [item.spec for item in REGISTRY.disabled.values() if item.spec],
    ids=lambda spec: spec.id,
)


@cache
def detector(id_: str) -> Detector:
    return REGISTRY.get(id_).load(Runtime())


def run(entry: Entry, image: np.ndarray, *params: float, resolution: int = -1, **options: Any) -> np.ndarray:
    spec = entry.spec
    if spec.requires_mask:
        options.setdefault("mask", np.zeros(image.shape[:2], np.uint8))
    return the_map(
        detector(spec.id)(
            image, resolution=spec.resolve_resolution(resolution), params=spec.resolve_params(*params), **options
        )
    )


def the_map(found: np.ndarray | Detection) -> np.ndarray:
    result = found.map if isinstance(found, Detection) else found
    assert result is not None
    return result


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.0).reshape(height, width, channels)


def check(entry: Entry, result: np.ndarray) -> None:
    assert result.dtype == np.uint8
    assert result.ndim == 3
    assert result.shape[2] == (4 if entry.spec.keeps_alpha else 3)
    assert min(result.shape) > 0
    assert result.flags.c_contiguous


@every_specification
def test_the_specification_is_whole(spec: PreprocessorSpec) -> None:
    assert len(spec.sliders) <= 3
    assert spec.resolution is None or (spec.resolution.unit, spec.resolution.step) == ("px", 8)
    assert set(spec.control_types) <= set(MODEL_WORDS)
    for weight in spec.weights:
        assert weight.size > 0
        assert set(weight.sha256) <= set("0123456789abcdef")
        assert weight.licence
        assert weight.source
    for library in spec.libraries:
        assert library.module
    # -1 is how clients ask for a default, so it must not be a value
    for slider in spec.sliders:
        assert slider.minimum >= 0
        steps = (slider.default - slider.minimum) / slider.step
        assert steps == pytest.approx(round(steps))


@every_entry
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (37, 53), (64, 64), (130, 31)])
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_any_picture_becomes_a_map(entry: Entry, shape: tuple[int, int], channels: int) -> None:
    image = picture(*shape, max(channels, 1))
    image = image if channels else image[:, :, 0]
    before = image.copy()
    result = run(entry, image)
    check(entry, result)
    assert np.array_equal(image, before)
    assert not np.shares_memory(result, image)


@every_entry
def test_the_short_side_is_the_resolution(entry: Entry) -> None:
    height, width = run(entry, picture(60, 90), resolution=128).shape[:2]
    if entry.spec.resolution is not None:
        assert (height, width) == (128, 192)
    else:
        # its own size, the fixed one, or the nearest multiples of 64
        assert (height, width) in ((60, 90), (512, 768), (64, 64))


@every_entry
def test_the_ends_of_every_slider_work(entry: Entry) -> None:
    for ends in ("minimum", "maximum"):
        check(entry, run(entry, picture(48, 65), *(getattr(slider, ends) for slider in entry.spec.sliders)))


@every_entry
def test_a_12_megapixel_photograph(entry: Entry) -> None:
    check(entry, run(entry, np.resize(picture(300, 400), (3000, 4000, 3))))


@every_entry
def test_alpha_is_over_white(entry: Entry) -> None:
    clear = picture(20, 30, 4)
    if entry.spec.keeps_alpha:  # there the fourth channel is a mask, unless there is another
        assert np.array_equal(detector(entry.spec.id)(clear, resolution=512), clear)
    clear[:, :, 3] = 0
    assert np.array_equal(run(entry, clear), run(entry, np.full((20, 30, 3), 255, np.uint8)))
    solid = picture(20, 30, 4)
    solid[:, :, 3] = 255
    assert np.array_equal(run(entry, solid), run(entry, solid[:, :, :3]))


@every_entry
def test_grey_is_three_equal_channels(entry: Entry) -> None:
    grey = picture(25, 40, 1)
    assert np.array_equal(run(entry, grey), run(entry, np.repeat(grey, 3, axis=2)))
    assert np.array_equal(run(entry, grey), run(entry, grey[:, :, 0]))


@every_entry
def test_a_view_is_read_as_its_copy(entry: Entry) -> None:
    view = picture(40, 60)[::-1, ::2]
    assert np.array_equal(run(entry, view), run(entry, view.copy()))


@every_entry
@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, "u1")],
    ids=["float", "two channels", "empty", "one dimension"],
)
def test_what_is_no_picture_is_refused(entry: Entry, image: np.ndarray) -> None:
    with pytest.raises(AnnotatorError, match="picture"):
        detector(entry.spec.id)(image, resolution=512, mask=np.zeros(image.shape[:2], np.uint8))


@every_entry
def test_params_may_be_left_out(entry: Entry) -> None:
    image, mask = picture(30, 30), np.zeros((30, 30), np.uint8)
    left_out = the_map(detector(entry.spec.id)(image, resolution=512, mask=mask))
    assert np.array_equal(left_out, run(entry, image, mask=mask))


@every_entry
def test_a_mask_is_required_where_it_is_said(entry: Entry) -> None:
    if entry.spec.requires_mask:
        with pytest.raises(AnnotatorError, match="mask"):
            detector(entry.spec.id)(picture(8, 8), resolution=512)
        with pytest.raises(AnnotatorError, match="size of the picture"):
            detector(entry.spec.id)(picture(8, 8), resolution=512, mask=np.zeros((8, 9), np.uint8))
    else:
        check(entry, the_map(detector(entry.spec.id)(picture(8, 8), resolution=512)))


@every_entry
def test_a_picture_too_narrow_is_an_error_and_not_a_crash(entry: Entry) -> None:
    try:
        check(entry, run(entry, picture(1, 40000), resolution=2048))
    except AnnotatorError as error:
        assert "narrow" in error.problem  # noqa: PT017 - either may happen


@every_entry
def test_the_seed_decides(entry: Entry) -> None:
    image = picture(40, 50)
    same = np.array_equal(run(entry, image, rng_seed=1), run(entry, image, rng_seed=2))
    assert same is entry.spec.cacheable
    assert np.array_equal(run(entry, image, rng_seed=3), run(entry, image, rng_seed=3))


@every_entry
def test_the_global_generator_is_left_alone(entry: Entry) -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[union-attr, index]
    run(entry, picture(40, 50), rng_seed=1)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[union-attr, index]


@every_entry
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image=arrays(np.uint8, st.tuples(st.integers(9, 16), st.integers(9, 16), st.sampled_from([1, 3, 4]))),
    part=st.floats(0, 1),
    resolution=st.integers(8, 14).map(lambda eighths: eighths * 8),
)
def test_any_picture_and_setting(entry: Entry, image: np.ndarray, part: float, resolution: int) -> None:
    params = [slider.minimum + part * (slider.maximum - slider.minimum) for slider in entry.spec.sliders]
    before = image.copy()
    first = run(entry, image, *params, resolution=resolution)
    check(entry, first)
    assert np.array_equal(first, run(entry, image, *params, resolution=resolution))
    assert np.array_equal(image, before)


PEER_DEFAULTS = {
    "All": "none",
    "Canny": "canny",
    "InstructP2P": "none",
    "Lineart": "lineart_standard",
    "Inpaint": "inpaint_only",
    "Recolor": "recolor_luminance",
    "Reference": "reference_only",
    "Shuffle": "shuffle",
    "Tile": "tile_resample",
}


@pytest.mark.parametrize(("control_type", "expected"), PEER_DEFAULTS.items())
def test_defaults_of_the_control_types_are_the_peers(control_type: str, expected: str) -> None:
    found = default_preprocessor(control_type, [entry.spec for entry in REGISTRY.entries])
    assert found is not None
    assert found.id == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("demo_t2iadapter_canny [00001111]", "none"),
        ("t2iadapter_style_sd14v1 [202e85cc]", "clip_vision"),
        ("t2i-adapter-sketch-sdxl-1.0.fp16", "pidinet_sketch"),
        ("coadapter-color-sd15v1", "color"),
        (NO_MODEL, "clip_vision"),
    ],
)
def test_the_preprocessor_of_a_t2i_adapter_belongs_to_it(model: str, expected: str) -> None:
    """Its type says how it is built, not what maps it needs."""
    found = default_preprocessor("T2I-Adapter", [entry.spec for entry in REGISTRY.entries], model=model)
    assert found is not None
    assert found.id == expected
