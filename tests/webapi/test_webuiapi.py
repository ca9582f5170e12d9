"""The client that most programs use, as it is, against our routes and our unit reader."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from lib_controlnet.core.modes import ControlMode, ResizeMode
from lib_controlnet.core.units import parse_unit
from lib_controlnet.webapi.routes import mount
from tests.surface_services import make_services

webuiapi = pytest.importorskip("webuiapi")

RGB = np.random.default_rng(6).integers(0, 256, (24, 40, 3), dtype=np.uint8)


@pytest.fixture
def api(tmp_path: Path) -> Any:
    app = FastAPI()
    mount(app, make_services(tmp_path), None, nullcontext())
    client = webuiapi.WebUIApi(host="testserver", port=80)
    client.session = TestClient(app)
    return client


def test_lists(api: Any) -> None:
    assert api.controlnet_version() == 3
    assert len(api.controlnet_model_list()) == 3
    assert api.controlnet_module_list()[:2] == ["none", "canny"]


def test_detect(api: Any) -> None:
    result = api.controlnet_detect([Image.fromarray(RGB)], module="canny", threshold_a=50, threshold_b=10)
    expected = (RGB.max(axis=2) > 50) * np.uint8(245)
    expected[0, 0] = 64
    assert result.info == "Success"
    assert np.array_equal(np.asarray(result.images[0])[..., 0], expected)


def test_default_unit() -> None:
    unit = parse_unit(webuiapi.ControlNetUnit().to_dict(), 0)
    assert unit.enabled
    assert unit.image is None
    assert unit.mask is None
    assert (unit.preprocessor, unit.model, unit.resize_mode) == ("none", "None", ResizeMode.resize_and_fill)


def test_unit_with_picture_and_mask() -> None:
    sent = webuiapi.ControlNetUnit(
        image=Image.fromarray(RGB),
        mask=Image.fromarray(RGB[..., 0]),
        module="canny",
        model="control_v11p_sd15_canny [d14c016b]",
        control_mode=2,
        guidance_end=0.5,
    ).to_dict()
    unit = parse_unit(sent, 0)
    assert np.array_equal(unit.image, RGB)
    assert np.array_equal(unit.mask, RGB[..., 0])
    assert (unit.control_mode, unit.guidance_end) == (ControlMode.control, 0.5)
