"""The text under a picture: quoting, parsing, and filling widgets from it."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modules import errors, prompt_parser, script_callbacks, shared
from modules.paths_internal import data_path

sys.modules["modules.generation_parameters_copypaste"] = sys.modules[__name__]  # the name extensions know from before

PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
SIZE = re.compile(r"^(\d+)x(\d+)$")
DEFAULTS: dict[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}
"""What a missing parameter means."""


class PasteField(tuple):
    """(component, name of the parameter or function of all parameters); `api` = the request field."""

    component: Any
    api: str | None

    def __new__(cls, component: Any, target: str | Callable[..., Any], *, api: str | None = None) -> PasteField:
        self = super().__new__(cls, (component, target))
        self.component = component
        self.api = api
        return self

    @property
    def label(self) -> str | None:
        return self[1] if isinstance(self[1], str) else None

    @property
    def function(self) -> Callable[..., Any] | None:
        return self[1] if callable(self[1]) else None


paste_fields: dict[str, dict[str, Any]] = {}
registered_param_bindings: list[Any] = []
infotext_to_setting_name_mapping: list[tuple[str, str]] = []


def reset() -> None:
    for known in (paste_fields, registered_param_bindings):
        known.clear()


def quote(text: Any) -> Any:
    """JSON-quoted when it contains a comma, colon or line break."""
    ends_early = any(x in str(text) for x in ",\n:")
    return json.dumps(text, ensure_ascii=False) if ends_early else text


def unquote(text: str) -> str:
    """What `quote` made of it; anything else as it is."""
    if text[:1] == text[-1:] == '"':
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


def add_paste_fields(tabname: str, init_img: Any, fields: list[Any], override_settings_component: Any = None) -> None:
    made = [x if isinstance(x, PasteField) else PasteField(*x) for x in fields or []]
    paste_fields[tabname] = {
        "init_img": init_img,
        "fields": made,
        "override_settings_component": override_settings_component,
    }


def _prompts(lines: list[str]) -> tuple[str, str]:
    positive: list[str] = []
    negative: list[str] = []
    target = positive
    for line in (x.strip() for x in lines):
        if line.startswith("Negative prompt:"):
            target = negative
            line = line.removeprefix("Negative prompt:").strip()
        target.append(line)
    return "\n".join(positive), "\n".join(negative)


def parse_generation_parameters(x: str, skip_fields: list[str] | None = None) -> dict[str, Any]:
    """Parameters by name, all values str; missing ones take the meaning that their absence has."""
    *lines, last = x.strip().split("\n")
    if len(PARAMETER.findall(last)) < 3:
        lines, last = [*lines, last], ""
    result: dict[str, Any] = {}
    for key, value in PARAMETER.findall(last):
        value = unquote(value)
        size = SIZE.match(value) if isinstance(value, str) else None
        if size:
            result[f"{key}-1"], result[f"{key}-2"] = size.groups()
        else:
            result[key] = value
    result["Prompt"], result["Negative prompt"] = prompt, negative = _prompts(lines)
    for key, value in DEFAULTS.items():
        result.setdefault(key, value)
    weighted = prompt_parser.parse_prompt_attention(prompt) + prompt_parser.parse_prompt_attention(negative)
    if any(weight != 1.0 and text != "BREAK" for text, weight in weighted):
        result.setdefault("Emphasis", "Original")
    for key in shared.opts.infotext_skip_pasting if skip_fields is None else skip_fields:
        result.pop(key, None)
    return result


def _setting_names() -> list[tuple[str, str]]:
    own = [(info.infotext, key) for key, info in shared.opts.data_labels.items() if info.infotext]
    return own + infotext_to_setting_name_mapping


def create_override_settings_dict(text_pairs: list[str]) -> dict[str, Any]:
    """{"CLIP_stop_at_last_layers": 2} of ["Clip skip: 2"]."""
    params = {k: v.strip() for k, v in (x.split(":", maxsplit=1) for x in text_pairs)}
    return {s: shared.opts.cast_value(s, params[name]) for name, s in _setting_names() if name in params}


def get_override_settings(
    params: dict[str, Any], *, skip_fields: list[str] | None = None
) -> list[tuple[str, str, Any]]:
    """(parameter, setting, value) of parameters that are settings and differ from the present value."""
    found: list[tuple[str, str, Any]] = []
    for name, setting in _setting_names():
        if name in (skip_fields or []) or params.get(name) is None:
            continue
        if setting == "sd_model_checkpoint" and shared.opts.disable_weights_auto_swap:
            continue
        value = shared.opts.cast_value(setting, params[name])
        if value != getattr(shared.opts, setting, None):
            found.append((name, setting, value))
    return found


def pasted_value(component: Any, value: Any) -> Any:
    """A parameter (str) in the type of the component's value."""
    kind = type(component.value)
    if kind is bool and value == "False":
        return False
    if component.value is None:  # gradio 4: of a text that is empty
        return value
    return float(value) if kind is int else kind(value)


def connect_paste(
    button: Any, fields: list[Any], input_comp: Any, override_settings_component: Any, tabname: str
) -> None:
    """Fill the tab's widgets from the text in `input_comp` (or the last picture's) when `button` is pressed."""

    def paste(prompt: str) -> list[Any]:
        last = Path(data_path) / "params.txt"
        if not prompt and last.is_file():
            prompt = last.read_text(encoding="utf-8")
        return pasted(prompt, fields)

    button.click(fn=paste, inputs=[input_comp], outputs=[x[0] for x in fields], show_progress="hidden")


def pasted(text: str, fields: list[Any]) -> list[Any]:
    """Updates of the fields' widgets from an infotext."""
    import gradio as gr

    def update_of(component: Any, key: Any, params: dict[str, Any]) -> Any:
        try:
            value = key(params) if callable(key) else params.get(key)
            if value is None:
                return gr.update()
            return (
                value
                if isinstance(value, dict) and "__type__" in value
                else gr.update(value=pasted_value(component, value))
            )
        except Exception:  # noqa: BLE001 - a bad field leaves its widget alone
            errors.report(f"Error executing {key}", exc_info=True)
            return gr.update()

    params = parse_generation_parameters(text)
    script_callbacks.infotext_pasted_callback(text, params)
    return [update_of(component, key, params) for component, key in fields]
