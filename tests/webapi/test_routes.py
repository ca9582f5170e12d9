"""The routes on a real FastAPI application, with whichever pydantic is installed."""

from __future__ import annotations

import base64
import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load as load_tensors

from annotator.sd_controlnet.skeletons import draw_json
from lib_controlnet.webapi.models import ControlNetDetect
from lib_controlnet.webapi.routes import mount
from tests.surface_services import MODEL_NAMES, POSE, make_services

JSON = {"Content-Type": "application/json"}
"""Newer releases of FastAPI read no body without it."""

RGB = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)


class Lock:
    """The host's queue: not re-entrant, and it remembers whether it was used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken = 0

    def __enter__(self) -> None:
        assert self._lock.acquire(timeout=1), "the queue was entered twice"
        self.taken += 1

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def png(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture
def lock() -> Lock:
    return Lock()


@pytest.fixture
def client(tmp_path: Path, lock: Lock) -> TestClient:
    app = FastAPI()
    mount(app, make_services(tmp_path, {"control_net_unit_count": 5.0}), None, lock)  # type: ignore[arg-type]
    return TestClient(app)


def test_version(client: TestClient) -> None:
    assert client.get("/controlnet/version").json() == {"version": 3}


def test_settings(client: TestClient) -> None:
    assert client.get("/controlnet/settings").json() == {"control_net_unit_count": 5}


def test_model_list_rescans_unless_told_not_to(client: TestClient, tmp_path: Path) -> None:
    names = client.get("/controlnet/model_list").json()["model_list"]
    assert [name.split(" [")[0] for name in names] == sorted(MODEL_NAMES)
    (tmp_path / "new.safetensors").write_bytes((tmp_path / f"{MODEL_NAMES[0]}.safetensors").read_bytes())
    assert client.get("/controlnet/model_list?update=false").json()["model_list"] == names
    assert len(client.get("/controlnet/model_list").json()["model_list"]) == len(names) + 1


def test_module_list_by_id_and_by_label(client: TestClient) -> None:
    answer = client.get("/controlnet/module_list").json()
    assert answer["module_list"][:2] == ["none", "canny"]
    assert "inpaint" in answer["module_list"]
    labels = client.get("/controlnet/module_list?alias_names=true").json()
    assert "inpaint_global_harmonious" in labels["module_list"]
    assert set(labels["module_detail"]) == set(labels["module_list"])


def test_module_detail_is_the_peers(client: TestClient) -> None:
    details = client.get("/controlnet/module_list").json()["module_detail"]
    assert details["canny"] == {
        "model_free": False,
        "sliders": [
            {"name": "Resolution", "value": 512, "min": 64, "max": 2048, "step": 8},
            {"name": "Low Threshold", "value": 100, "min": 1, "max": 255, "step": 1},
            {"name": "High Threshold", "value": 200, "min": 1, "max": 255, "step": 1},
        ],
    }
    assert details["reference_only"]["model_free"] is True
    assert details["invert"]["sliders"] == []


def test_control_types(client: TestClient) -> None:
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert types["All"]["default_option"] == "none"
    assert types["All"]["default_model"] == "None"
    assert len(types["All"]["model_list"]) == 1 + len(MODEL_NAMES)
    canny = types["Canny"]
    assert canny["module_list"] == ["none", "canny", "invert (from white bg & black line)"]
    assert canny["default_option"] == "canny"
    assert canny["default_model"] == canny["model_list"][1]
    assert {"Depth", "OpenPose", "Tile", "Inpaint"} <= set(types)


def detect(client: TestClient, **body: Any) -> Any:
    return client.post("/controlnet/detect", json=body)


@pytest.mark.parametrize("key", ["controlnet_input_images", "controlnet_images"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_detect(client: TestClient, lock: Lock, key: str, prefix: str) -> None:
    dark = RGB // 4
    answer = detect(
        client,
        controlnet_module="canny",
        controlnet_processor_res=256,
        controlnet_threshold_a=50,
        controlnet_threshold_b=10,
        **{key: [prefix + png(RGB), prefix + png(dark)]},
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["info"] == "Success"
    for source, text in zip((RGB, dark), body["images"], strict=True):
        expected = (source.max(axis=2) > 50) * np.uint8(245)
        expected[0, 0] = 32
        assert np.array_equal(decoded(text)[..., 0], expected)
    assert lock.taken == 2


def test_detect_with_the_values_of_webuiapi(client: TestClient) -> None:
    """Its defaults of -1, and -100 as the peers' tests send it, are the preprocessor's defaults."""
    for value in (-1, -100):
        answer = detect(
            client,
            controlnet_module="canny",
            controlnet_images=[png(RGB)],
            controlnet_processor_res=value,
            controlnet_threshold_a=value,
            controlnet_threshold_b=value,
        )
        result = decoded(answer.json()["images"][0])
        assert result[0, 0, 0] == 512 // 8
        assert np.array_equal(result[1:, :, 0], (RGB.max(axis=2)[1:] > 100) * (255 - 200))


def test_detect_by_label_and_with_mask(client: TestClient) -> None:
    mask = np.zeros((24, 40), np.uint8)
    mask[:5] = 255
    answer = detect(
        client,
        controlnet_module="Inpaint_Global_Harmonious",
        controlnet_input_images=[png(RGB)],
        controlnet_masks=[png(mask)],
    )
    result = decoded(answer.json()["images"][0])
    assert result.shape == (24, 40, 4)
    assert np.array_equal(result[..., 3] < 255, mask > 0)


def test_default_module_returns_the_picture(client: TestClient) -> None:
    assert np.array_equal(decoded(detect(client, controlnet_images=[png(RGB)]).json()["images"][0]), RGB)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "No image selected"),
        ({"controlnet_input_images": [""]}, "No image selected"),
        ({"controlnet_module": "cany", "controlnet_images": ["x"]}, "Module not available"),
        ({"controlnet_module": "inpaint", "controlnet_images": [png(RGB)]}, "one mask for each image"),
        ({"controlnet_images": [png(RGB)] * 2, "controlnet_masks": [png(RGB)]}, "2 images and 1 masks"),
        ({"controlnet_images": ["!!!"]}, "not base64"),
        ({"controlnet_images": ["/etc/passwd"]}, "by path"),
        ({"controlnet_images": ["http://localhost/a.png"]}, "web address"),
        ({"controlnet_images": [png(RGB)], "controlnet_masks": [png(RGB[:4])]}, "size"),
        ({"controlnet_images": [png(RGB)] * 101}, "at most 100"),
        ({"controlnet_images": [png(RGB)], "controlnet_threshold_a": [1]}, "threshold_a"),
        ({"controlnet_images": [png(RGB)], "controlnet_masks": {}}, "controlnet_masks"),
        ({"controlnet_modul": "canny", "controlnet_images": [png(RGB)]}, "controlnet_modul"),
        ({"controlnet_images": [png(RGB)], "controlnet_processor_res": "big"}, "processor_res"),
    ],
)
def test_detect_refuses_with_the_reason(client: TestClient, body: dict[str, Any], words: str) -> None:
    answer = detect(client, **body)
    assert answer.status_code == 422
    assert words in str(answer.json()["detail"])


REPLACED = {"controlnet_threshold_a": 9000, "controlnet_threshold_b": 0, "controlnet_processor_res": 5000}


def test_numbers_that_the_preprocessor_does_not_take_are_replaced_and_said(client: TestClient) -> None:
    asked = {"controlnet_module": "canny", "controlnet_images": [png(RGB)] * 2}
    plain, answer = detect(client, **asked), detect(client, **asked, **REPLACED)
    assert answer.status_code == 200
    assert answer.json()["images"] == plain.json()["images"]
    assert answer.json()["info"].startswith("Success. ")
    for words in ("threshold_a 9000", "Low Threshold", "default 100", "threshold_b 0", "processor_res 5000"):
        assert answer.json()["info"].count(words) == 1
    said = detect(client, controlnet_module="invert", controlnet_images=[png(RGB)], controlnet_threshold_b=0.5)
    assert "no threshold_b; 0.5 was not used" in said.json()["info"]


def test_unknown_keys_are_passed_over_and_said(client: TestClient) -> None:
    answer = detect(client, controlnet_images=[png(RGB)], my_client="1.0")
    assert answer.status_code == 200
    assert answer.json()["info"] == 'Success. there is no field "my_client"; it was passed over'


@pytest.mark.parametrize("name", ["processor_res", "threshold_a", "threshold_b"])
@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-1e400", "9" * 400, "-" + "9" * 400, "9" * 5000, "[1]", "{}", '"x"', "true"]
)
def test_numbers_of_every_kind_are_answered(client: TestClient, name: str, value: str) -> None:
    body = f'{{"controlnet_module": "canny", "controlnet_images": ["{png(RGB)}"], "controlnet_{name}": {value}}}'
    answer = client.post("/controlnet/detect", content=body, headers=JSON)
    if value.strip("-") == "9" * 400:
        assert answer.status_code == 200
        assert f"{name} " in answer.json()["info"]
    else:
        assert answer.status_code == (400 if len(value) > 4300 else 422), answer.text
        assert isinstance(answer.json()["detail"], str)
        assert len(answer.text) < 500


JSON_KINDS = ["null", "true", "7", "1e400", "NaN", '"x"', "[]", "[null]", "[[]]", "{}", '{"a": 1}', '"\\ud800"']


@pytest.mark.parametrize("field", list(ControlNetDetect.__annotations__))
@pytest.mark.parametrize("value", JSON_KINDS)
def test_wrong_containers_in_every_field_are_never_the_servers_fault(
    client: TestClient, field: str, value: str
) -> None:
    fields = {"controlnet_module": '"canny"', "controlnet_images": f'["{png(RGB)}"]', field: value}
    body = ", ".join(f'"{name}": {text}' for name, text in fields.items())
    answer = client.post("/controlnet/detect", content="{" + body + "}", headers=JSON)
    assert answer.status_code in (200, 422), answer.text
    assert answer.status_code == 200 or isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", "[" * 100_000, '{"a":' * 100_000, '"\\ud800"', "\xff"])
def test_bodies_that_are_none_are_refused(client: TestClient, body: str) -> None:
    for route in ("detect", "render_openpose_json"):
        answer = client.post(f"/controlnet/{route}", content=body.encode("latin-1"), headers=JSON)
        empty = route != "detect" and body == "[]"
        assert answer.status_code == 200 if empty else answer.status_code in (400, 422), answer.text


def test_the_pixels_of_a_request_are_bounded(client: TestClient) -> None:
    large = io.BytesIO()
    Image.new("1", (8192, 5000)).save(large, "PNG")
    text = base64.b64encode(large.getvalue()).decode()
    answer = detect(client, controlnet_images=[text, text])
    assert answer.status_code == 422
    assert "at most 67 megapixels in one request" in answer.json()["detail"]


def test_failing_preprocessor_is_the_servers_fault(client: TestClient) -> None:
    answer = detect(client, controlnet_module="broken", controlnet_images=[png(RGB)])
    assert answer.status_code == 500
    assert "the net is broken" in answer.json()["detail"]


def test_queue_is_free_after_an_error(client: TestClient, lock: Lock) -> None:
    detect(client, controlnet_module="broken", controlnet_images=[png(RGB)])
    assert detect(client, controlnet_images=[png(RGB)]).status_code == 200


ROUTES = ["version", "model_list", "module_list", "control_types", "settings"]


@pytest.mark.parametrize("route", ROUTES)
def test_login_is_asked_on_every_route(tmp_path: Path, lock: Lock, route: str) -> None:
    app = FastAPI()
    mount(app, make_services(tmp_path), [("anna", "secret"), ("bob", "word")], lock)  # type: ignore[arg-type]
    client = TestClient(app)
    assert client.get(f"/controlnet/{route}").status_code == 401
    assert client.post("/controlnet/detect", json={}).status_code == 401
    for login, status in (
        (("bob", "word"), 200),
        (("anna", "secret"), 200),
        (("bob", "secret"), 401),
        (("anna", "word"), 401),
        (("", ""), 401),
    ):
        assert client.get(f"/controlnet/{route}", auth=login).status_code == status
    if route == "version":
        assert client.post("/controlnet/detect", json={}, auth=("bob", "word")).status_code == 422


def test_schema_describes_every_route(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        f"/controlnet/{name}" for name in [*ROUTES, "detect", "measure", "render_openpose_json", "error_map/{number}"]
    }
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert operation["tags"] == ["ControlNet"], path
            assert operation["description"], path
            content = operation["responses"]["200"]["content"]
            assert "image/png" in content or "$ref" in content["application/json"]["schema"], path
    body = schema["components"]["schemas"]["ControlNetDetect"]["properties"]
    assert {name for name in body if name.startswith("controlnet_")} == {
        "controlnet_module",
        "controlnet_input_images",
        "controlnet_images",
        "controlnet_masks",
        "controlnet_processor_res",
        "controlnet_threshold_a",
        "controlnet_threshold_b",
        "controlnet_tensor_format",
    }
    assert all("description" in field for field in body.values())


def test_schema_names_do_not_meet_the_hosts(client: TestClient) -> None:
    """A name used twice would be renamed in the host's own schema."""
    names = set(client.get("/openapi.json").json()["components"]["schemas"])
    assert {name for name in names if not name.startswith("ControlNet")} <= {"HTTPValidationError", "ValidationError"}


def test_detect_returns_poses_beside_maps(client: TestClient) -> None:
    body = {"controlnet_module": "openpose", "controlnet_input_images": [png(RGB), png(RGB)]}
    answer = client.post("/controlnet/detect", json=body).json()
    assert answer["poses"] == [POSE, POSE]
    assert len(answer["images"]) == 2
    assert "tensor" not in answer


@pytest.mark.parametrize("tensor_format", [None, "safetensors", "torch"])
def test_detect_returns_embeddings(client: TestClient, tensor_format: str | None) -> None:
    body = {"controlnet_module": "clip_vision", "controlnet_input_images": [png(RGB)]}
    if tensor_format:
        body["controlnet_tensor_format"] = tensor_format
    answer = client.post("/controlnet/detect", json=body).json()
    assert set(answer) == {"tensor", "info"}
    raw = base64.b64decode(answer["tensor"][0])
    found = torch.load(io.BytesIO(raw), weights_only=True) if tensor_format == "torch" else load_tensors(raw)
    assert found["pixels"].tolist() == [[24 * 40]]
    assert torch.allclose(found["mean"], torch.tensor(RGB.reshape(-1, 3).mean(axis=0)).float())


def test_an_unknown_tensor_format_is_refused(client: TestClient) -> None:
    body = {"controlnet_module": "clip_vision", "controlnet_input_images": [png(RGB)]}
    answer = client.post("/controlnet/detect", json={**body, "controlnet_tensor_format": "pickle"})
    assert answer.status_code == 422
    assert "controlnet_tensor_format" in answer.text


def test_poses_are_drawn(client: TestClient) -> None:
    person = {"pose_keypoints_2d": [0.5, 0.5, 1.0] * 18, "face_keypoints_2d": None, "pose_keypoints_3d": []}
    pose = {
        "people": [person],
        "animals": [None, [1.0, 1.0, 1.0]],
        "canvas_width": 24,
        "canvas_height": 16,
        "version": 1.3,
    }
    answer = client.post("/controlnet/render_openpose_json", json=[pose, pose]).json()
    assert answer["info"] == "Success"
    assert [decoded(image).shape for image in answer["images"]] == [(16, 24, 3)] * 2
    assert client.post("/controlnet/render_openpose_json", json=[]).json() == {"info": "No pose data detected."}
    for wrong in ([{"people": []}], {"people": []}, [{**pose, "people": [{"pose_keypoints_2d": "x"}]}]):
        assert client.post("/controlnet/render_openpose_json", json=wrong).status_code == 422


HUGE = "9" * 400
PERSON = '{"pose_keypoints_2d": [%s, 0.5, 1.0]}'
WRONG_POSES = {
    "no canvas": ("0", "[]", "0x9"),
    "huge canvas": (HUGE, "[]", "pose"),
    "infinite canvas": ("Infinity", "[]", "pose"),
    "canvas of text": ('"wide"', "[]", "pose"),
    "canvas of null": ("null", "[]", ""),
    "NaN": ("9", f"[{PERSON % 'NaN'}]", "no coordinate"),
    "infinite": ("9", f"[{PERSON % '-Infinity'}]", "no coordinate"),
    "1e300": ("9", f"[{PERSON % '1e300'}]", "no coordinate"),
    "1e400": ("9", f"[{PERSON % '1e400'}]", "no coordinate"),
    "400 digits": ("9", f"[{PERSON % HUGE}]", "pose"),
    "text": ("9", f"[{PERSON % repr('x').replace(chr(39), chr(34))}]", "pose"),
    "a list": ("9", f"[{PERSON % '[[]]'}]", "pose"),
    "no triples": ("9", '[{"pose_keypoints_2d": [0.1, 0.2]}]', "triples"),
    "a crowd": ("9", f"[{', '.join(['{}'] * 20_000)}]", "at most 1000"),
    "a smaller crowd": ("9", f"[{', '.join(['{}'] * 300)}]", "at most 200"),
    "people of null": ("9", "null", ""),
    "a person of null": ("9", "[null]", ""),
    "deep": ("9", "[" * 400 + "]" * 400, ""),
}


def pose_client(tmp_path: Path, lock: Lock) -> TestClient:
    app = FastAPI()
    mount(app, replace(make_services(tmp_path), draw_pose=draw_json), None, lock)  # type: ignore[arg-type]
    return TestClient(app)


@pytest.mark.parametrize("case", WRONG_POSES)
def test_odd_poses_are_refused_with_their_reason(tmp_path: Path, lock: Lock, case: str) -> None:
    width, people, words = WRONG_POSES[case]
    text = f'[{{"canvas_width": {width}, "canvas_height": 9, "people": {people}}}]'
    answer = pose_client(tmp_path, lock).post("/controlnet/render_openpose_json", content=text, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert isinstance(answer.json()["detail"], str)
    assert words in answer.json()["detail"]
    assert len(answer.text) < 1000


def test_poses_of_too_many_pixels_together_are_refused(tmp_path: Path, lock: Lock) -> None:
    pose = {"canvas_width": 8192, "canvas_height": 4096, "people": []}
    answer = pose_client(tmp_path, lock).post("/controlnet/render_openpose_json", json=[pose] * 3)
    assert answer.status_code == 422
    assert "67 megapixels" in answer.json()["detail"]


def test_points_far_outside_the_canvas_are_drawn_as_far_as_they_reach_in(tmp_path: Path, lock: Lock) -> None:
    body = [10.0, 8.0, 1.0, 10.0, 9e5, 1.0] + [0.0] * 48
    pose = {"canvas_width": 24, "canvas_height": 16, "people": [{"pose_keypoints_2d": body}]}
    answer = pose_client(tmp_path, lock).post("/controlnet/render_openpose_json", json=[pose])
    assert answer.status_code == 200
    assert decoded(answer.json()["images"][0]).any()


def test_a_pose_that_cannot_be_drawn_is_refused(tmp_path: Path, lock: Lock) -> None:
    app = FastAPI()
    mount(app, replace(make_services(tmp_path), draw_pose=draw_json), None, lock)  # type: ignore[arg-type]
    pose = {"people": [], "canvas_width": 0, "canvas_height": 9}
    answer = TestClient(app).post("/controlnet/render_openpose_json", json=[pose])
    assert answer.status_code == 422
    assert "0x9" in answer.json()["detail"]
