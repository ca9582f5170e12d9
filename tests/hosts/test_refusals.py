"""Every unit that cannot take effect stops the job, and the error names unit, field, what was found and the remedy."""

from __future__ import annotations

import pytest

from .conftest import Host, as_base64, picture, pixels, unit
from .test_jobs import difference

CASES = {
    "unknown model": ({"model": "nothing_like_it"}, "model", "was not found"),
    "no model": ({"model": "None"}, "model", "no model"),
    "model for SDXL": ({"model": "xl"}, "model", "SDXL"),
    "a LoRA": ({"model": "lora"}, "model", "LoRA"),
    "a truncated file": ({"model": "cut"}, "model", "cut"),
    "no image": ({"image": None}, "image", "no picture"),
    "an empty image": ({"image": ""}, "image", "no picture"),
    "bad base64": ({"image": "@@@ not base64 @@@"}, "image", ""),
    "base64 of no picture": ({"image": "aGVsbG8gd29ybGQ="}, "image", ""),
    "a file path": ({"image": "C:\\pictures\\cat.png"}, "image", ""),
    "a URL": ({"image": "https://example.com/cat.png"}, "image", ""),
    "weight out of range": ({"weight": 2.5}, "weight", "2.5"),
    "unknown module": ({"module": "cany"}, "module", "cany"),
    "threshold out of range": ({"module": "canny", "threshold_a": 300}, "threshold_a", "300"),
    "start after end": ({"guidance_start": 0.9, "guidance_end": 0.1}, "guidance", ""),
    "unknown control mode": ({"control_mode": "Balancd"}, "control_mode", "Balancd"),
    "misspelt field": ({"wieght": 1.0}, "wieght", "weight"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_unit_stops_the_job(host: Host, case: str):
    fields, field, words = CASES[case]
    with pytest.raises(Exception, match="ControlNet unit 1") as caught:
        host.txt2img({"enabled": False}, unit(**fields), width=32, height=32)
    text = str(caught.value)
    assert field in text, text
    assert words in text, text
    assert "What to do" in text, text


def test_a_unit_beyond_the_configured_count_is_refused(host: Host):
    with pytest.raises(Exception, match="more units than configured"):
        host.txt2img(*[unit() for _ in range(4)], width=32, height=32)


@pytest.mark.parametrize("mode", [1, "1", "My prompt is more important", "ControlMode.PROMPT", "Prefer Prompt"])
def test_every_spelling_of_a_control_mode_acts(host: Host, mode: object):
    expected = host.txt2img(unit(control_mode="My prompt is more important"), width=32, height=32)
    got = host.txt2img(unit(control_mode=mode), width=32, height=32)
    assert difference(pixels(got), pixels(expected)) == 0


def test_old_names_are_read(host: Host):
    old = {"enabled": True, "model": "first", "module": "none", "input_image": as_base64(picture()), "lowvram": False}
    new = unit(guidance_end=0.5, resize_mode="Just Resize")
    got = host.txt2img({**old, "guidance": 0.5, "resize_mode": 0, "mask": None}, steps=4, width=32, height=32)
    assert difference(pixels(got), pixels(host.txt2img(new, steps=4, width=32, height=32))) == 0
