"""/sdapi/v1 as clients use it, in process."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import pytest
from PIL import Image

from standalone import App
from tests.standalone.conftest import Traced, picture

SMALL = {"prompt": "a heart", "steps": 2, "width": 64, "height": 64, "seed": 3, "sampler_name": "Euler"}


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture(scope="module")
def client(app: App) -> Any:
    """A client of the session's host; the routes are added to an application of their own."""
    pytest.importorskip("fastapi")
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    web = FastAPI()
    app.attach_api(web)
    return TestClient(web)


def test_txt2img_answers_pictures_parameters_and_info(host: Traced, client: Any) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "batch_size": 2, "nonsense": 1})

    assert answer.status_code == 200
    body = answer.json()
    assert len(body["images"]) == 2  # no grid where nothing is saved
    info = json.loads(body["info"])
    assert info["all_seeds"] == [3, 4]
    assert info["index_of_first_image"] == 0
    assert decoded(body["images"][1]).size == (64, 64)
    assert decoded(body["images"][1]).info["parameters"] == info["infotexts"][1]
    assert body["parameters"]["steps"] == 2


def test_pictures_can_be_left_out(host: Traced, client: Any) -> None:
    assert client.post("/sdapi/v1/txt2img", json={**SMALL, "send_images": False}).json()["images"] == []


def test_img2img_with_mask(host: Traced, client: Any) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    request = {**SMALL, "init_images": ["data:image/png;base64," + encoded(picture())], "mask": encoded(mask)}
    body = client.post("/sdapi/v1/img2img", json={**request, "mask_blur": 0}).json()

    assert decoded(body["images"][0]).size == (64, 64)
    assert body["parameters"]["init_images"] is None
    assert host.details("process")[0]["p"].mask_blur_x == 0


@pytest.mark.parametrize("size", [(64, 64), (40, 96)])
def test_latent_mask_is_a_picture_of_any_size(host: Traced, client: Any, size: tuple[int, int]) -> None:
    """What is kept in the latent comes from it instead of the mask; nothing given leaves that to the mask."""
    mask, kept = Image.new("L", (64, 64), 255), Image.new("L", size)
    request = {**SMALL, "init_images": [encoded(picture())], "mask": encoded(mask), "inpainting_fill": 0}
    free = client.post("/sdapi/v1/img2img", json=request).json()
    held = client.post("/sdapi/v1/img2img", json={**request, "latent_mask": encoded(kept)}).json()
    assert free["images"][0] != held["images"][0]
    for text in ("", None):
        answer = client.post("/sdapi/v1/img2img", json={**request, "latent_mask": text})
        assert answer.json()["images"] == free["images"]


def test_alwayson_arguments_reach_the_script_as_they_are(host: Traced, client: Any) -> None:
    given = [{"any": ["thing"]}, "text", 3]
    client.post("/sdapi/v1/txt2img", json={**SMALL, "alwayson_scripts": {"tRaCiNg": {"args": given}}})

    args = host.details("process")[0]["args"]
    assert list(args[:3]) == given


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"alwayson_scripts": {"other": {"args": []}}}, 422, "other"),
        ({"alwayson_scripts": {"Tracing": {"args": {"a": 1}}}}, 422, "must be a list"),
        ({"alwayson_scripts": {"Tracing": []}}, 422, "takes an object"),
        ({"alwayson_scripts": {"Tracing": {"arg": []}}}, 422, "Found: 'arg'"),
        ({"alwayson_scripts": {"Tracing": {"enabled": True, "args": []}}}, 422, "nothing else. Found: 'enabled'"),
        ({"hr_upscaler": "nobody", "enable_hr": True}, 422, "could not find upscaler named nobody"),
        ({"steps": "many"}, 422, "steps"),
        ({"cfg_scale": "NaN"}, 422, "cfg_scale"),
        ({"cfg_scale": "-Infinity"}, 422, "cfg_scale"),
        ({"s_noise": "NaN"}, 422, "s_noise"),
        ({"denoising_strength": "inf", "enable_hr": True}, 422, "denoising_strength"),
        ({"script_name": "nobody"}, 422, "nobody"),
        ({"sampler_name": "nobody"}, 422, "no sampler 'nobody'"),
        ({"sampler_name": "Euler Nobody"}, 422, "no sampler 'Euler Nobody'"),
        ({"scheduler": "nobody"}, 422, "no scheduler 'nobody'"),
        ({"override_settings": {"sd_model_checkpoint": "nobody"}}, 422, "no checkpoint 'nobody'"),
        *(
            ({name: 0}, 422, f"{name} must be at least")
            for name in ("steps", "width", "height", "batch_size", "n_iter")
        ),
        ({"width": -8}, 422, "width must be at least 8"),
        ({"override_settings": {"no_such_setting": 1}}, 422, "no_such_setting"),
    ],
)
def test_errors_are_answered(host: Traced, client: Any, change: dict[str, Any], status: int, text: str) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**SMALL, **change})
    assert answer.status_code == status
    assert text in answer.text
    assert client.post("/sdapi/v1/txt2img", json=SMALL).status_code == 200


@pytest.mark.parametrize("name", ["Euler a", "DPM++ 2M Karras", "DPM++ 2M karras", "DDIM"])
def test_a_schedule_may_stand_in_a_samplers_name(host: Traced, client: Any, name: str) -> None:
    assert client.post("/sdapi/v1/txt2img", json={**SMALL, "sampler_name": name}).status_code == 200


def test_null_in_any_field_means_its_default(host: Traced, client: Any) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    names = schemas["StableDiffusionProcessingTxt2Img"]["properties"]
    plain = client.post("/sdapi/v1/txt2img", json={**SMALL, "batch_size": 1}).json()["images"]
    assert len(names) > 40
    for name in names:
        answer = client.post("/sdapi/v1/txt2img", json={**SMALL, "batch_size": 1, name: None})
        assert answer.status_code in (200, 422), f"{name}: {answer.text[:300]}"
        if answer.status_code == 200 and name not in SMALL:
            assert answer.json()["images"] == plain or name in ("batch_size", "send_images"), name


@pytest.mark.parametrize(
    "value", ["NaN", "1e400", '"\\ud800"', "9" * 4000, "[" * 900 + "]" * 900, '{"a": ' * 400 + "1" + "}" * 400]
)
@pytest.mark.parametrize("place", ["alwayson_scripts", "styles", "seed", "eta", "prompt"])
def test_what_json_cannot_hold_again_is_answered(host: Traced, client: Any, value: str, place: str) -> None:
    """The answer repeats the request: what is passed over in it (arguments that are too many) must not fail there."""
    fields = {key: json.dumps(item) for key, item in SMALL.items()}
    fields[place] = f'{{"Tracing": {{"args": [{"0, " * 20}{value}]}}}}' if place == "alwayson_scripts" else value
    body = "{" + ", ".join(f'"{key}": {item}' for key, item in fields.items()) + "}"
    answer = client.post("/sdapi/v1/txt2img", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in ((200,) if place == "alwayson_scripts" else (200, 422)), answer.text[:500]


def test_an_exception_in_sampling_is_an_error_answer(host: Traced, client: Any) -> None:
    unet = host.app.modules("shared").sd_model.model.diffusion_model

    def fail(*_: Any) -> None:
        raise RuntimeError("unit 0: no such model")

    handle = unet.register_forward_pre_hook(fail)
    answer = client.post("/sdapi/v1/txt2img", json=SMALL)
    handle.remove()
    assert answer.status_code == 500
    assert answer.json()["error"] == "RuntimeError"
    assert answer.json()["errors"] == "unit 0: no such model"
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


@pytest.mark.parametrize("image", ["garbage", "/etc/passwd", "file:///etc/passwd"])
def test_what_is_no_picture_is_refused(host: Traced, client: Any, image: str) -> None:
    answer = client.post("/sdapi/v1/img2img", json={**SMALL, "init_images": [image]})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "Invalid encoded image"


def test_urls_follow_the_settings(host: Traced, client: Any) -> None:
    request = {**SMALL, "init_images": ["http://127.0.0.1/x.png"]}
    assert "local resource" in client.post("/sdapi/v1/img2img", json=request).text
    host.options(api_enable_requests=False)
    assert "Requests not allowed" in client.post("/sdapi/v1/img2img", json=request).text


def test_options_come_back_and_change(host: Traced, client: Any) -> None:
    before = client.get("/sdapi/v1/options").json()
    assert before["CLIP_stop_at_last_layers"] == 1.0
    assert isinstance(before["CLIP_stop_at_last_layers"], float)
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2}).status_code == 200
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "nobody"}).status_code == 500
    answer = client.post("/sdapi/v1/options", json={"api_enable_requests": False, "CLIP_stop_at_last_layers": 3})
    assert answer.status_code == 200
    assert answer.json()["not_changed"] == ["api_enable_requests"]
    assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 3
    assert client.post("/sdapi/v1/options", json=client.get("/sdapi/v1/options").json()).json() is None
    job = client.post("/sdapi/v1/txt2img", json={**SMALL, "override_settings": {"api_enable_requests": False}})
    assert job.status_code == 422
    assert "api_enable_requests" in job.json()["detail"]
    assert host.app.modules("shared").opts.api_enable_requests is True  # not to be changed from outside


@pytest.mark.parametrize(
    ("route", "names"),
    [
        ("samplers", {"DDIM", "Euler a", "UniPC"}),
        ("schedulers", {"automatic", "karras"}),
        ("upscalers", {"None", "Lanczos", "Nearest"}),
        ("latent-upscale-modes", {"Latent"}),
    ],
)
def test_lists(client: Any, route: str, names: set[str]) -> None:
    assert names <= {x["name"] for x in client.get(f"/sdapi/v1/{route}").json()}


def test_checkpoints_scripts_and_flags(client: Any) -> None:
    models = client.get("/sdapi/v1/sd-models").json()
    assert {"first", "second", "wide"} <= {x["model_name"] for x in models}
    assert client.get("/sdapi/v1/scripts").json()["txt2img"] == ["tracing"]
    assert client.get("/sdapi/v1/cmd-flags").json()["medvram"] is False
    assert client.get("/sdapi/v1/memory").json()["ram"]["used"] > 0
    assert client.get("/openapi.json").status_code == 200


def test_png_info_round_trip(host: Traced, client: Any) -> None:
    body = client.post("/sdapi/v1/txt2img", json=SMALL).json()
    info = client.post("/sdapi/v1/png-info", json={"image": body["images"][0]}).json()
    assert info["info"] == json.loads(body["info"])["infotexts"][0]
    assert info["parameters"]["Seed"] == "3"


def test_infotext_in_a_request_changes_settings(host: Traced, client: Any) -> None:
    clip = []
    opts = host.app.modules("shared").opts
    host.script["at_event"]["process"] = lambda _d: clip.append(opts.CLIP_stop_at_last_layers)
    text = "a\nSteps: 2, Sampler: Euler, Seed: 3, Size: 64x64, Clip skip: 2"
    client.post("/sdapi/v1/txt2img", json={**SMALL, "infotext": text})
    assert clip == [2]
    assert opts.CLIP_stop_at_last_layers == 1


def test_progress_and_interrupt_from_another_thread(host: Traced, client: Any) -> None:
    from threading import Thread

    seen: list[dict[str, Any]] = []

    def look(_details: Any) -> None:
        if len(host.details("cfg_denoiser")) == 3:
            seen.append(client.get("/sdapi/v1/progress").json())
            client.post("/sdapi/v1/interrupt")

    host.script["at_event"]["cfg_denoiser"] = look
    job = Thread(target=client.post, args=("/sdapi/v1/txt2img",), kwargs={"json": {**SMALL, "steps": 8}})
    job.start()
    job.join(timeout=120)
    assert not job.is_alive()
    assert 0 < seen[0]["progress"] < 1
    assert seen[0]["state"]["sampling_steps"] == 8
    assert len(host.details("cfg_denoiser")) == 3


def test_password_protects_the_hosts_routes_only(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    monkeypatch.setattr(app.modules("shared_cmd_options").cmd_opts, "api_auth", "u:p,v:q")
    web = FastAPI()
    api = app.modules("api.api").Api(web, app.modules("call_queue").queue_lock)
    web.add_api_route("/extension", lambda: "open")
    client = TestClient(web)
    assert api.credentials == {"u": "p", "v": "q"}
    assert client.get("/sdapi/v1/samplers").status_code == 401
    assert client.get("/sdapi/v1/samplers", auth=("u", "q")).status_code == 401
    assert client.get("/sdapi/v1/samplers", auth=("v", "q")).status_code == 200
    assert client.get("/extension").status_code == 200


def test_the_queue_serves_in_order_and_is_not_re_entrant(app: App) -> None:
    from threading import Thread

    lock = app.modules("fifo_lock").FIFOLock()
    served: list[int] = []

    def take(number: int) -> None:
        with lock:
            served.append(number)

    lock.acquire()
    assert lock.acquire(blocking=False) is False
    threads = []
    for number in range(5):
        threads.append(Thread(target=take, args=(number,)))
        threads[-1].start()
        while len(lock._waiting) != number + 1:
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join()
    assert served == list(range(5))
    with pytest.raises(RuntimeError):
        lock.release()
