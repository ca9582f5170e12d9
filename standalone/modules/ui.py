"""The page."""

from __future__ import annotations

from typing import Any

from modules import (
    gradio_extension,
    gradio_versions,
    images,
    infotext_utils,
    script_callbacks,
    scripts,
    shared,
    ui_img2img,
    ui_results,
    ui_txt2img,
)
from modules.ui_common import plaintext_to_html
from modules.ui_generation import paste_symbol, random_symbol, reuse_symbol, switch_values_symbol
from modules.ui_settings import UiSettings

import gradio as gr  # isort: skip

__all__ = ["create_ui", "paste_symbol", "plaintext_to_html", "random_symbol", "reuse_symbol", "switch_values_symbol"]


def _pnginfo() -> Any:
    with gr.Blocks(analytics_enabled=False) as page, gr.Row(equal_height=False):
        with gr.Column(variant="panel"):
            image = gr.Image(
                elem_id="pnginfo_image",
                label="Source",
                **gradio_versions.UPLOAD,
                interactive=True,
                type="pil",
                image_mode="RGBA",
            )
        with gr.Column(variant="panel") as right:
            text = gr.Textbox(label="Parameters", elem_id="pnginfo_text", lines=6, show_copy_button=True)

    def read(picture: Any) -> str:
        return "" if picture is None else images.read_info_from_image(picture)[0] or ui_results.NO_PARAMETERS

    with page:
        with right:
            ui_results.build("pnginfo", text)
        image.change(read, inputs=[image], outputs=[text], show_progress="hidden")
    return page


def create_ui() -> Any:
    """The whole page, in the order of the real host: settings, txt2img, img2img, extensions' tabs."""
    gradio_extension.install()
    gradio_extension.reload_javascript()
    infotext_utils.reset()
    settings = UiSettings()
    settings.register_settings()
    shared.opts.reorder()
    try:
        scripts.scripts_current = scripts.scripts_txt2img
        txt2img_page = ui_txt2img.create(scripts.scripts_txt2img)
        scripts.scripts_current = scripts.scripts_img2img
        img2img_page = ui_img2img.create(scripts.scripts_img2img)
    finally:
        scripts.scripts_current = None
    tabs = [
        (txt2img_page, "txt2img", "txt2img"),
        (img2img_page, "img2img", "img2img"),
        (_pnginfo(), "PNG Info", "pnginfo"),
    ]
    tabs += script_callbacks.ui_tabs_callback()
    tabs.append((settings.create_ui(), "Settings", "settings"))
    shared.tab_names = [label for _, label, _ in tabs]
    theme = gradio_extension.theme()
    with gr.Blocks(theme=theme, analytics_enabled=False, title="Stable Diffusion") as demo:
        settings.create_quicksettings()
        with gr.Tabs(elem_id="tabs"):
            for page, label, elem_id in tabs:
                with gr.TabItem(label, id=elem_id, elem_id=f"tab_{elem_id}"):
                    page.render()
        settings.add_functionality()
        ui_results.connect()
    shared.demo = demo
    return demo
