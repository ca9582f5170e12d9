"""`POST /controlnet/measure` on a real FastAPI application, with the true preprocessors."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from annotator.sd_controlnet.registry import discover
from annotator.sd_controlnet.spec import Runtime
from lib_controlnet.engine.preprocess import PreprocessRunner
from lib_controlnet.webapi.routes import mount
from tests.measure import maps
from tests.surface_services import make_services


def png(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    registry: Any = discover(None)
    runner = PreprocessRunner(registry, Runtime)
    mount(app, replace(make_services(tmp_path), annotators=registry, preprocess=runner), None, threading.Lock())
    return TestClient(app)


PICTURE = maps.smooth(96, 128)
EDGES = cv2.Canny(PICTURE, 100, 200)


def ask(client: TestClient, status: int = 200, **body: Any) -> Any:
    answer = client.post("/controlnet/measure", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_picture_against_its_own_lines(client: TestClient) -> None:
    answer = ask(
        client, controlnet_module="canny", controlnet_input_images=[png(PICTURE)], controlnet_maps=[png(EDGES)]
    )
    found = answer["measures"][0]
    assert (found["f1"], found["f1_tolerant"], found["adherence"], answer["adherence"]) == (1, 1, 1, 1)
    assert found["measured"]["detector"] == "canny, resolution 96, Low Threshold 100, High Threshold 200"
    assert found["measured"]["size"] == "128x96"
    assert answer["images"] == []


def test_one_map_serves_all_and_masks_say_what_counts(client: TestClient) -> None:
    other = PICTURE.copy()
    other[:, 64:] = 0
    left = np.zeros(EDGES.shape, np.uint8)
    left[:, :60] = 255
    pictures, wanted = [png(PICTURE), png(other)], [png(EDGES)]
    whole = ask(client, controlnet_module="canny", controlnet_images=pictures, controlnet_maps=wanted, error_maps=True)
    scores = [one["f1_tolerant"] for one in whole["measures"]]
    assert scores[0] == 1 > scores[1]
    assert whole["adherence"] == pytest.approx(sum(scores) / 2, abs=1e-4)
    assert len(whole["images"]) == 2
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(whole["images"][1])))).shape == PICTURE.shape
    masked = ask(
        client, controlnet_module="canny", controlnet_images=pictures, controlnet_maps=wanted,
        controlnet_masks=[None, png(left)],
    )  # fmt: skip
    assert masked["measures"][1]["f1_tolerant"] > 0.99 > scores[1]


def test_what_is_not_taken_is_null_and_says_why(client: TestClient) -> None:
    tiny = np.zeros((8, 8, 3), np.uint8)
    found = ask(client, controlnet_module="canny", controlnet_images=[png(tiny)], controlnet_maps=[png(tiny)])
    assert found["measures"][0]["ms_ssim"] is None
    assert "not taken" in found["measures"][0]["measured"]["ms_ssim"]


def test_a_preprocessor_that_takes_maps_is_replaced_by_one_that_takes_pictures(client: TestClient) -> None:
    body = {"controlnet_images": [png(PICTURE)], "controlnet_maps": [png(EDGES)]}
    found = ask(client, controlnet_module="none", controlnet_model="control_v11p_sd15_canny", **body)
    assert found["measures"][0]["f1"] == 1
    assert any("measured with canny" in note for note in found["measures"][0]["notes"])
    refused = ask(client, 422, controlnet_module="none", **body)
    assert "name a preprocessor" in str(refused)


def test_poses_as_json(client: TestClient) -> None:
    refused = ask(client, 422, controlnet_module="canny", controlnet_images=[png(PICTURE)],
                  controlnet_poses=[maps.pose(maps.STANDING)])  # fmt: skip
    assert "no map to compare" in str(refused)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"controlnet_maps": []}, "one map"),
        ({"controlnet_images": []}, "No image"),
        ({"controlnet_masks": [None, None]}, "no mask or one"),
        ({"controlnet_module": "no such thing"}, "no such thing"),
        ({"controlnet_processor_res": "wide"}, "number"),
        ({"controlnet_maps": ["bm90IGEgcGljdHVyZQ=="]}, "picture"),
    ],
)
def test_refusals(client: TestClient, body: dict[str, Any], words: str) -> None:
    right = {"controlnet_module": "canny", "controlnet_images": [png(PICTURE)], "controlnet_maps": [png(EDGES)]}
    assert words in str(ask(client, 422, **{**right, **body}))


def test_odd_settings_are_said(client: TestClient) -> None:
    answer = ask(client, controlnet_module="canny", controlnet_images=[png(PICTURE)], controlnet_maps=[png(EDGES)],
                 controlnet_processor_res=5, surprise=1)  # fmt: skip
    assert "surprise" in answer["info"]
    assert any("out of range" in note for note in answer["measures"][0]["notes"])


def test_the_page_asks_where_a_picture_follows(tmp_path: Path) -> None:
    app, services = FastAPI(), make_services(tmp_path)
    mount(app, services, None, threading.Lock())
    field = np.zeros((48, 64), np.float32)
    field[:24], field[24:, :32] = 1, -1
    number = services.measured.keep({1: (PICTURE[:48, :64], field)})
    with TestClient(app) as page:
        answers = {part: page.get(f"/controlnet/error_map/{number}?shown=1&part={part}") for part in ("picture", "map")}
        gone = page.get("/controlnet/error_map/99")
    shown = {part: np.asarray(Image.open(io.BytesIO(answer.content))) for part, answer in answers.items()}
    assert np.array_equal(shown["picture"], PICTURE[:48, :64])
    assert [tuple(shown["map"][place]) for place in ((0, 0), (47, 0), (47, 63))] == [
        (0, 200, 60, 255), (235, 40, 30, 255), (235, 40, 30, 0) if shown["map"][47, 63][0] == 235 else (0, 200, 60, 0),
    ]  # fmt: skip
    assert gone.status_code == 404
    assert "make the picture again" in gone.json()["detail"]
