"""What differs between the gradio versions of the hosts: 3.41.2 (A1111, reForge, Classic) and 4.40 (Forge)."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

import gradio as gr
from gradio.context import Context

from .uploads import uploads_only

Update = dict[str, Any]


def picture_input(label: str, **options: Any) -> gr.Image:
    """An upload of a picture, given to handlers as PIL in the file's own mode.

    Gradio's conversion to RGB would clip 16-bit files and paint transparent parts in whatever colour they hide.
    """
    source: dict[str, Any] = {"image_mode": None, **_lossless()}
    if "source" in _parameters(gr.Image):
        source["source"] = "upload"
    else:
        source["sources"] = ["upload", "webcam", "clipboard"]
    return not_saved(uploads_only(gr.Image(label=label, type="pil", **source, **options)))


def picture_output(label: str, **options: Any) -> gr.Image:
    """A picture that the user looks at and downloads."""
    return not_saved(uploads_only(gr.Image(label=label, type="numpy", interactive=False, **_lossless(), **options)))


def _lossless() -> dict[str, Any]:
    """Gradio 4 hands pictures to the page as WebP, which changes them: a map that comes back as input, a reset that is
    taken back and a download would not be what was made. Gradio 3 sends PNG."""
    return {"format": "png"} if "format" in _parameters(gr.Image) else {}


def files_input(label: str, types: Sequence[str] = ("image",), **options: Any) -> gr.File:
    """An upload of several pictures, or files of other `types`, given to handlers as temporary files."""
    return not_saved(uploads_only(gr.File(label=label, file_count="multiple", file_types=list(types), **options)))


def webcam_toggle(on: bool) -> Update | None:
    """The update that lets a picture come from the webcam; None where the component offers that itself (gradio 4)."""
    if "source" not in _parameters(gr.Image):
        return None
    # in the form that reaches the page: gradio 3.41 has this property there, and no word for it in its updates
    return {"__type__": "update", "value": None, "source": "webcam" if on else "upload"}


def tool_button(text: str, tooltip: str, **options: Any) -> gr.Button:
    """A small square button as the host's own."""
    classes = ["tool", "cnet-tool", *options.pop("elem_classes", [])]
    return _with_tooltip(gr.Button(text, elem_classes=classes, scale=0, min_width=42, **options), tooltip)


def small_button(text: str, tooltip: str, **options: Any) -> gr.Button:
    """A button with a word or two, as wide as they are."""
    classes = ["cnet-small", *options.pop("elem_classes", [])]
    return _with_tooltip(gr.Button(text, elem_classes=classes, size="sm", scale=0, min_width=80, **options), tooltip)


def script_option(code: str) -> dict[str, Any]:
    """`code` as the JavaScript of an event listener."""
    return {"_js" if gr.__version__.startswith("3.") else "js": code}


def _with_tooltip(button: Any, tooltip: str) -> Any:
    button.webui_tooltip = tooltip  # A1111 and Forge put this attribute into the page's configuration
    return button


def not_saved(component: Any) -> Any:
    """The same component, left out of the host's ui-config.json: its value or its choices change at run time."""
    component.do_not_save_to_config = True
    return component


def find_component(elem_id: str) -> Any | None:
    """A component of the page under construction, by id; None in the throw-away blocks in which hosts call `ui()`."""
    root = Context.root_block
    blocks = root.blocks.values() if root is not None else ()
    return next((block for block in blocks if getattr(block, "elem_id", None) == elem_id), None)


@cache
def _parameters(component: type) -> frozenset[str]:
    return frozenset(inspect.signature(component.__init__).parameters)
