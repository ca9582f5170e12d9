"""The page "Train" in the embedded host: its handlers start a real, tiny training and put the model into unit 0."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from lib_controlnet.training.config import ControlOptions
from lib_controlnet.training.status import Status
from tests.training.tiny import make_pairs

train_page = pytest.importorskip("lib_controlnet.ui.train_page")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from standalone import boot
folder = Path(sys.argv[2])
demo = Path(sys.argv[1]) / "models" / "demo"
app = boot(demo / "demo.safetensors", demo / "controlnet", data_dir=folder / "data", api=False, ui=True)
page = app.demo.get_config_file()
names = {c["id"]: c["props"].get("elem_id") for c in page["components"]}
functions = app.demo.fns if isinstance(app.demo.fns, list) else [app.demo.fns[key] for key in sorted(app.demo.fns)]

def handler(name):
    for number, event in enumerate(page["dependencies"]):
        target = event["targets"][0] if event["targets"] else None
        target = target[0] if isinstance(target, (list, tuple)) else target
        if names.get(target) == f"controlnet_train_{name}":
            return functions[number].fn, [names.get(out) for out in event["outputs"]]

values = [str(folder / "pairs"), "fill50k: the paper's", "", "canny", "page_made", str(folder / "out"), "", 64, 4, 2, 1,
          1e-4, 0.5, 2, 2, "no", "adamw", False, False, False, "text files", "ControlNet", 64]
report = {}

def wait():
    end = time.monotonic() + 200
    while time.monotonic() < end:
        report["state"], report["grid"] = handler("refresh")[0]()
        if 'data-state="running"' not in report["state"]:
            return report["state"]
        time.sleep(0.5)

class Interrogator:
    def interrogate(self, image):
        return f"a picture {image.width} wide"

try:
    handler("start")[0](*values)
except Exception as error:
    report["refused"] = str(error)
app.modules("shared").opts.data["controlnet_allow_training"] = True
found, sheet = handler("check")[0](*values)
report["check"], report["sheet"] = found, list(sheet.shape)
values[0], values[1], values[-3] = str(folder / "pairs" / "target"), "pictures: plain", "interrogator, where files lack"
handler("start")[0](*values)
report["no_interrogator"] = wait()
app.modules("shared").interrogator = Interrogator()
report["check_plain"] = handler("check")[0](*values)[0]
handler("start")[0](*values)
wait()
used, report["outputs"] = handler("use")
report["used"] = used()
print("REPORT" + json.dumps(report))
"""


def test_from_folder_to_unit_on_the_page(tmp_path: Path) -> None:
    make_pairs(tmp_path / "pairs")
    line = [sys.executable, "-c", PROGRAM, str(ROOT), str(tmp_path)]
    answer = subprocess.run(line, capture_output=True, text=True, timeout=400)
    found = [line for line in answer.stdout.splitlines() if line.startswith("REPORT")]
    assert found, answer.stderr[-3000:]
    report = json.loads(found[0].removeprefix("REPORT"))
    assert "training is off" in report["refused"]
    assert "4 pairs, 2 held out, 6 captions" in report["check"]
    assert report["sheet"] == [256, 768, 3]
    assert 'data-state="failed"' in report["no_interrogator"]
    assert "this WebUI has no interrogator" in report["no_interrogator"]
    assert "6 captions are missing; the interrogator is to write them" in report["check_plain"]
    assert 'data-state="finished"' in report["state"]
    assert (tmp_path / "pairs" / "target" / "0.txt").read_text("utf-8") == "a picture 64 wide\n"
    assert "step 4 of 4" in report["state"]
    assert Path(report["grid"]).is_file()
    unit = "txt2img_controlnet_ControlNet-0_controlnet"
    assert report["outputs"] == [f"{unit}_enable_checkbox", f"{unit}_model_dropdown"]
    enabled, model = report["used"]
    assert enabled is True
    assert model["value"].startswith("page_made [")
    assert model["value"] in model["choices"]
    assert (tmp_path / "data" / "models" / "ControlNet" / "page_made.safetensors").is_file()


def test_every_field_of_the_page_is_in_the_configuration() -> None:
    values = ["pairs", "kohya: x", "maps", "canny", "made", "out", "old.safetensors", 512, 9, 2, 3, 1e-5, 0.4, 5, 6,
              "bf16", "adamw8bit", True, True, True, "none", "Control-LoRA", 8]  # fmt: skip
    tables = train_page.tables_from(values, "base.safetensors")
    assert tables["base"] == {"checkpoint": "base.safetensors", "start": "old.safetensors"}
    assert tables["control"] == {"kind": "control_lora", "rank": 8}
    assert set(train_page._KINDS.values()) == set(get_args(get_type_hints(ControlOptions)["kind"]))
    assert tables["data"] == {
        "folder": "pairs", "format": "kohya", "control_folder": "maps", "preprocessor": "canny", "resolution": 512,
        "held_out": 6, "captions": "none",
    }  # fmt: skip
    assert tables["train"] == {
        "steps": 9, "batch_size": 2, "accumulation": 3, "learning_rate": 1e-5, "empty_prompts": 0.4,
        "precision": "bf16", "optimizer": "adamw8bit", "checkpointing": True, "only_mid_control": True,
        "sd_locked": False,
    }  # fmt: skip
    assert (tables["samples"], tables["output"]) == ({"every": 5}, {"folder": "out", "name": "made"})


def test_what_the_page_says_is_escaped_and_drawn() -> None:
    status = Status("failed", name="<b>", step=2, steps=9, loss=0.5, adherence=0.25, convergence=2, error="<i>no</i>",
                    losses=((1, 0.6), (2, 0.5)))  # fmt: skip
    text = train_page.status_html(status)
    assert "<b>" not in text
    assert "&lt;i&gt;no&lt;/i&gt;" in text
    assert "sudden convergence at step 2" in text
    assert text.count("<polyline") == 1
    assert train_page.status_html(SimpleNamespace(state="idle")) == "<p>No training was started.</p>"
