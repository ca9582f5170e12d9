"""The gradio page, in a process of its own: one process holds one host, and gradio is patched while it lives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.standalone import tracing_extension

ROOT = Path(__file__).resolve().parents[2]
IDS = [
    "txt2img_prompt", "txt2img_neg_prompt", "txt2img_generate", "txt2img_interrupt", "txt2img_skip", "txt2img_width",
    "txt2img_height", "txt2img_batch_size", "txt2img_batch_count", "txt2img_steps", "txt2img_cfg_scale", "txt2img_hr",
    "txt2img_hr-checkbox", "txt2img_hr_scale", "txt2img_gallery", "txt2img_gallery_container", "html_log_txt2img",
    "generation_info_txt2img", "txt2img_script_container", "txt2img_settings", "tab_txt2img", "img2img_image",
    "img2maskimg", "img_inpaint_base", "img_inpaint_mask", "mode_img2img", "resize_mode", "img2img_mask_blur",
    "img2img_mask_mode", "img2img_inpaint_full_res", "img2img_inpaint_full_res_padding",
    "img2img_denoising_strength", "img2img_batch_input_dir", "img2img_tab_resize_by", "img2img_scale",
    "setting_CLIP_stop_at_last_layers", "setting_sd_model_checkpoint", "script_list",
]  # fmt: skip
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from standalone import boot
import torch
torch.set_num_threads(1)

app = boot(sys.argv[2], data_dir=sys.argv[3], extension_dirs=[Path(sys.argv[4])], api=True, ui=True)
scripts = app.modules("scripts")

def trace():
    return scripts.scripts_txt2img.alwayson_scripts[0].process.__globals__

def components():
    return app.demo.get_config_file()["components"]

from fastapi.testclient import TestClient
report = {"events": [[n, d.get("is_img2img")] for n, d in trace()["events"]]}
report["ids"] = [c["props"].get("elem_id") for c in components()]
report["order"] = [c["id"] for c in components()]
report["args"] = [[x.args_from, x.args_to, len(r.inputs)] for r in (scripts.scripts_txt2img, scripts.scripts_img2img)
                  for x in r.alwayson_scripts]
report["module"] = [scripts.scripts_data[0].module.__name__, "tracing.py" in sys.modules, sys.argv[4] in sys.path]

import gradio as gr
page = TestClient(gr.routes.App.create_app(app.demo))
report["html"] = page.get("/").text
report["theme"] = page.get("/theme.css").text
app.demo.queue(2)
import asyncio
async def start_queue():
    await app.demo._queue.start()
    found = str(app.demo._queue.queue_client.timeout)
    app.demo._queue.close()
    return found
report["timeout"] = asyncio.run(start_queue())
client = TestClient(app.app)
small = {"prompt": "x", "steps": 1, "width": 64, "height": 64}
trace()["at_event"]["process"] = lambda d: d["args"][1]["shared"].append(1)
for _ in range(2):
    client.post("/sdapi/v1/txt2img", json=small)
report["shared default"] = [len(d["args"][1]["shared"]) for n, d in trace()["events"] if n == "process"][-1]
report["script info"] = client.get("/sdapi/v1/script-info").json()
infotext = "a\\nSteps: 3, Sampler: DDIM, Seed: 9, Size: 64x64, CFG scale: 5"
answer = client.post("/sdapi/v1/txt2img", json={"infotext": infotext, "width": 72}).json()
report["from infotext"] = json.loads(answer["info"])["infotexts"][0]

old, model, model_class = trace(), app.modules("shared").sd_model, scripts.scripts_data[0].script_class
old["events"].clear()
app.reload()
report["unloaded"] = [n for n, _ in old["events"]]
report["reloaded"] = [[n, d.get("is_img2img")] for n, d in trace()["events"]]
report["same model"] = app.modules("shared").sd_model is model
report["new class"] = scripts.scripts_data[0].script_class is not model_class
report["callbacks"] = len(app.modules("script_callbacks").callback_map["callbacks_cfg_denoiser"])
report["works"] = TestClient(app.app).post("/sdapi/v1/txt2img", json=small).status_code
init = gr.components.IOComponent.__init__
app.close()
app.close()
report["left"] = [x for x in sys.modules if x.split(".")[0] == "modules"]
report["unpatched"] = gr.components.IOComponent.__init__ is not init and torch.load.__module__.startswith("torch")
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    pytest.importorskip("gradio")
    extension = tracing_extension.write(tmp_path_factory.mktemp("page") / "Tracing-Extension")
    data = tmp_path_factory.mktemp("page-data")
    arguments = [str(ROOT), str(checkpoints / "first.safetensors"), str(data), str(extension)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith("REPORT")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[0].removeprefix("REPORT"))


def test_start_order_and_number_of_ui_calls(report: dict[str, Any]) -> None:
    """Once per runner for the page, then twice per runner for the API's defaults."""
    ui = [["ui", x] for x in (False, True, False, False, True, True)]
    assert report["events"] == [["before_ui", None], ["ui_settings", None], *ui, ["app_started", None]]


@pytest.mark.parametrize("elem_id", IDS)
def test_widgets_have_the_ids_extensions_look_for(report: dict[str, Any], elem_id: str) -> None:
    assert elem_id in report["ids"]


def test_every_runner_has_its_own_argument_range(report: dict[str, Any]) -> None:
    assert report["args"] == [[1, 3, 3], [1, 3, 3]]


def test_scripts_are_loaded_the_hosts_way(report: dict[str, Any]) -> None:
    assert report["module"] == ["tracing.py", False, False]


def test_the_page_loads_extensions_files_and_nothing_from_elsewhere(report: dict[str, Any]) -> None:
    import re

    html = report["html"]
    tags = re.findall(r"<(?:script|link)[^>]*>", html)
    assert sum("tracing.js" in x and "text/javascript" in x for x in tags) == 1
    assert sum("tracing.mjs" in x and 'type="module"' in x for x in tags) == 1
    assert sum("Tracing-Extension/style.css" in x for x in tags) == 1
    assert [x for x in tags if "://" in x] == []
    assert re.findall(r"@import[^;]*;|url\((?![\"']?data:)[^)]*\)", report["theme"]) == []
    assert "raw.githubusercontent" not in html


def test_jobs_of_the_page_may_take_longer_than_five_seconds(report: dict[str, Any]) -> None:
    assert report["timeout"] == "Timeout(timeout=None)"


def test_mutable_defaults_are_shared_between_requests(report: dict[str, Any]) -> None:
    assert report["shared default"] == 2


def test_script_info_describes_the_arguments(report: dict[str, Any]) -> None:
    assert [x["name"] for x in report["script info"]] == ["tracing", "tracing"]
    assert report["script info"][0]["args"][0]["label"] == "traced"


def test_infotext_fills_what_the_request_leaves_open(report: dict[str, Any]) -> None:
    assert "Steps: 3, Sampler: DDIM" in report["from infotext"]
    assert "CFG scale: 5" in report["from infotext"]
    assert "Seed: 9, Size: 72x64" in report["from infotext"]


def test_reload_runs_the_scripts_again_and_keeps_the_model(report: dict[str, Any]) -> None:
    assert report["unloaded"] == ["before_reload", "script_unloaded"]
    assert report["reloaded"][:2] == [["before_ui", None], ["ui_settings", None]]
    assert report["new class"]
    assert report["same model"]
    assert report["callbacks"] == 1
    assert report["works"] == 200


def test_nothing_is_left_after_closing(report: dict[str, Any]) -> None:
    assert report["left"] == []
    assert report["unpatched"]
