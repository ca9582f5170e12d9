"""Parts of the page that several tabs have."""

from __future__ import annotations

import datetime
import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import gradio_versions, shared, ui_results
from modules.ui_components import ToolButton

import gradio as gr  # isort: skip

refresh_symbol = "\U0001f504"


def plaintext_to_html(text: str, classname: str | None = None) -> str:
    content = "<br>\n".join(html.escape(x) for x in text.split("\n"))
    return f"<p class='{classname}'>{content}</p>" if classname else f"<p>{content}</p>"


def update_generation_info(generation_info: str, html_info: str, img_index: int) -> tuple[str, Any]:
    """The infotext of the picture that was clicked in the gallery."""
    try:
        texts = json.loads(generation_info)["infotexts"]
    except (ValueError, KeyError):
        return html_info, gr.update()
    if not 0 <= img_index < len(texts):
        return html_info, gr.update()
    return plaintext_to_html(texts[img_index]), gr.update()


@dataclass
class OutputPanel:
    gallery: Any
    generation_info: Any
    infotext: Any
    saved: Any
    html_log: Any


def outdir_of(tabname: str) -> str:
    """The folder of a tab's pictures, today's where they are kept by date."""
    folder = shared.opts.outdir_samples or getattr(shared.opts, f"outdir_{tabname}_samples")
    by_date = Path(folder) / datetime.date.today().isoformat()
    return str(by_date if shared.opts.save_to_dirs and by_date.is_dir() else folder)


def create_output_panel(tabname: str, outdir: str = "") -> OutputPanel:
    """Gallery, the text of the chosen picture, messages."""
    with gr.Column(variant="panel", elem_id=f"{tabname}_results"):
        with gr.Group(elem_id=f"{tabname}_gallery_container"):
            gallery = gr.Gallery(
                label="Output", show_label=False, elem_id=f"{tabname}_gallery", columns=4, preview=True, height=480,
                interactive=False, object_fit="contain", **gradio_versions.GALLERY,
            )  # fmt: skip
        with gr.Group():
            infotext = gr.HTML(elem_id=f"html_info_{tabname}", elem_classes="infotext")
            saved = gr.HTML(elem_id=f"html_saved_{tabname}", elem_classes="infotext")
            html_log = gr.HTML(elem_id=f"html_log_{tabname}", elem_classes="html-log")
            generation_info = gr.Textbox(visible=False, elem_id=f"generation_info_{tabname}")
            ui_results.build(tabname, generation_info, lambda: outdir_of(tabname))
            button = gr.Button(visible=False, elem_id=f"{tabname}_generation_info_button")
            button.click(
                fn=update_generation_info,
                **gradio_versions.script("function(x, y, z){ return [x, y, selected_gallery_index()]; }"),
                inputs=[generation_info, infotext, infotext],
                outputs=[infotext, infotext],
                show_progress="hidden",
            )
    return OutputPanel(gallery, generation_info, infotext, saved, html_log)


def create_refresh_button(
    refresh_component: Any, refresh_method: Callable[[], Any], refreshed_args: Any, elem_id: str
) -> ToolButton:
    """A button that finds the choices of one or several widgets again."""
    components = refresh_component if isinstance(refresh_component, list) else [refresh_component]

    def refresh() -> Any:
        refresh_method()
        args: Any = refreshed_args() if callable(refreshed_args) else refreshed_args
        for key, value in args.items():
            for component in components:
                setattr(component, key, value)
        updates = [gr.update(**args) for _ in components]
        return updates if len(updates) > 1 else updates[0]

    label = components[0].label
    button = ToolButton(value=refresh_symbol, elem_id=elem_id, tooltip=f"{label}: refresh" if label else "Refresh")
    button.click(fn=refresh, inputs=[], outputs=components)
    return button


def interrupt() -> None:
    """The Interrupt button: ends the picture, or (by setting) lets it end and makes no further one."""
    state = shared.state
    if not state.stopping_generation and state.job_count > 1 and shared.opts.interrupt_after_current:
        state.stop_generating()
    else:
        state.interrupt()
