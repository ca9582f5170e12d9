"""An extension that writes down everything a host does with it, and can misbehave on request."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
import importlib
import torch
from modules import script_callbacks, scripts, shared

events = []
raise_in = set()
at_event = {}

METHODS = (
    "setup before_process process before_process_batch after_extra_networks_activate process_batch "
    "process_before_every_sampling post_sample on_mask_blend postprocess_batch postprocess_batch_list "
    "postprocess_image postprocess_maskoverlay postprocess_image_after_composite postprocess before_hr"
).split()


def note(name, **details):
    events.append((name, details))
    if name in at_event:
        at_event[name](details)
    if name in raise_in:
        raise RuntimeError("raised in " + name)


class Tracing(scripts.Script):
    def title(self):
        return "Tracing"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        import gradio as gr

        note("ui", is_img2img=is_img2img)
        return [gr.Checkbox(False, label="traced"), gr.State({"shared": []})]


def _method(name):
    def method(self, p, *args, **kwargs):
        note(name, p=p, args=args, kwargs=kwargs, grad=torch.is_grad_enabled())

    return method


for _name in METHODS:
    setattr(Tracing, _name, _method(_name))

script_callbacks.on_cfg_denoiser(lambda params: note("cfg_denoiser", params=params))
script_callbacks.on_cfg_denoised(lambda params: note("cfg_denoised", params=params))
script_callbacks.on_cfg_after_cfg(lambda params: note("cfg_after_cfg", params=params))
script_callbacks.on_model_loaded(lambda model: note("model_loaded", model=model))
script_callbacks.on_before_ui(lambda: note("before_ui"))
script_callbacks.on_ui_settings(lambda: note("ui_settings"))
script_callbacks.on_app_started(lambda demo, app: note("app_started", demo=demo))
script_callbacks.on_before_reload(lambda: note("before_reload"))
script_callbacks.on_script_unloaded(lambda: note("script_unloaded"))
"""


def write(folder: Path) -> Path:
    """The extension's root; its script is `scripts/tracing.py`."""
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "tracing.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "style.css").write_text("/* tracing */", encoding="utf-8")
    (folder / "javascript").mkdir()
    (folder / "javascript" / "tracing.mjs").write_text("export {};", encoding="utf-8")
    (folder / "javascript" / "tracing.js").write_text("", encoding="utf-8")
    return folder
