"""Every unit that cannot take effect stops the job, and the error names unit, field, what was found and the remedy."""

from __future__ import annotations

import pytest
from fastapi import HTTPException
from PIL import Image, ImageDraw

from .conftest import Host, as_base64, picture, pixels, unit
from .test_jobs import difference

PRIVATE = "sd_controlnet"
"""The name under which the host has mounted our folder."""

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
    "no number for a slider": ({"module": "canny", "threshold_a": "high"}, "threshold_a", "high"),
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
    assert caught.value.__dict__["status_code"] == 422, "both hosts look into the instance"
    assert caught.value.__dict__["detail"] == text
    assert isinstance(caught.value, HTTPException), "the host would print a traceback"
    assert field in text, text
    assert words in text, text
    assert "What to do" in text, text


REPLACED = {
    "outside the sliders": (
        {"module": "canny", "threshold_a": 300, "threshold_b": 0, "processor_res": 4096},
        ("Processor Res: 512", "Threshold A: 100.0", "Threshold B: 200.0"),
        ("threshold_a 300 is outside", "threshold_b 0 is outside", "processor_res 4096 is outside"),
    ),
    "no such slider": (
        {"module": "invert", "threshold_a": 0.0, "threshold_b": 0.5, "processor_res": 400},
        ("Threshold A: -1.0", "Threshold B: -1.0"),
        ('"invert" has no threshold_a; 0 was', '"invert" has no threshold_b; 0.5 was', "no processor_res; 400 was"),
    ),
    "an unknown key": ({"my_client": "1.0"}, ("Module: none",), ('no field "my_client"',)),
    "400 digits": (
        {"module": "canny", "processor_res": 10**400, "threshold_a": -(10**400)},
        ("Processor Res: 512", "Threshold A: 100.0"),
        ("processor_res 1e+09", "threshold_a -inf"),
    ),
}


def ink() -> Image.Image:
    """Dark lines on white, of which nothing need be said but what a test is about."""
    drawing = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(drawing).rectangle((8, 8, 50, 50), outline="black", width=3)
    return drawing


@pytest.mark.parametrize("case", REPLACED)
def test_what_is_replaced_or_passed_over_is_said(host: Host, case: str, caplog: pytest.LogCaptureFixture):
    fields, used, notes = REPLACED[case]
    asked = {"module": "none", "image": as_base64(ink()), **fields}
    made = host.txt2img({"enabled": False}, unit(**asked), width=32, height=32)
    plain = host.txt2img({"enabled": False}, unit(module=asked["module"], image=asked["image"]), width=32, height=32)
    assert difference(pixels(made), pixels(plain)) == 0
    text = made.infotexts[0]
    assert all(words in text for words in used), text
    for words in notes:
        assert made.comments.count(words) == 1, made.comments
        assert sum(words in message for message in caplog.messages) == 1
        assert words in made.extra_generation_params["Notes on ControlNet"]
    assert "Notes on ControlNet" not in plain.extra_generation_params
    assert not plain.comments


def test_an_unexpected_error_is_the_servers_fault(host: Host, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(f"{PRIVATE}.core.arguments.parse_unit", broken)
    with pytest.raises(Exception, match="a bug") as caught:
        host.txt2img(unit(), width=32, height=32)
    assert caught.value.__dict__["status_code"] == 500


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
