"""What differs between the versions of gradio that hosts have: 3.41.2 (AUTOMATIC1111) and 4.40 (Forge)."""

from __future__ import annotations

import os
from typing import Any

from PIL import Image

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: it reads this once

import gradio as gr  # isort: skip

IS_3 = gr.__version__.startswith("3.")
UPLOAD: dict[str, Any] = {"source": "upload"} if IS_3 else {"sources": ["upload", "clipboard"]}
"""Options of a picture that the user brings."""
GALLERY: dict[str, Any] = {} if IS_3 else {"format": "png"}
"""Options of a gallery that shows pictures as they are, with their texts."""

if not IS_3:
    from gradio import component_meta  # type: ignore[attr-defined]

    # gradio 4 writes a stub file beside every module that derives a widget; this folder is not its to write into
    component_meta.create_or_modify_pyi = lambda *_arguments: None


def script(code: str) -> dict[str, Any]:
    """`code` as the JavaScript of an event listener."""
    return {"_js" if IS_3 else "js": code}


def widget_base() -> type:
    """The class of which every widget is."""
    return gr.components.IOComponent if IS_3 else gr.components.Component  # type: ignore[attr-defined]


def jobs_at_once(count: int) -> dict[str, Any]:
    """Options of `queue()`."""
    return {"concurrency_count" if IS_3 else "default_concurrency_limit": count}


def editable_picture(**options: Any) -> Any:
    """A picture that the user may crop."""
    return gr.Image(**({"tool": "editor"} if IS_3 else {}), **UPLOAD, **options)


def masked_picture(**options: Any) -> Any:
    """A picture over which the user draws a mask; `picture_and_mask` reads what a handler gets of it."""
    if IS_3:
        return gr.Image(tool="sketch", **UPLOAD, **options)
    gradio_4: Any = gr
    return gradio_4.ImageEditor(brush=gradio_4.Brush(colors=["#ffffff"]), **UPLOAD, **options)


def picture_and_mask(drawn: dict[str, Any] | None) -> tuple[Any, Any]:
    """(picture, mask) of a `masked_picture` of PIL's; the mask is white where something was drawn."""
    if not drawn:
        return None, None
    if "image" in drawn:
        return drawn["image"], drawn["mask"]
    mask = None
    for layer in drawn["layers"]:
        alpha = layer.getchannel("A")
        mask = alpha if mask is None else Image.composite(Image.new("L", alpha.size, 255), mask, alpha)
    return drawn["background"], mask
