"""The img2img tab."""

from __future__ import annotations

from typing import Any

from modules import gradio_versions, img2img, shared
from modules.ui_common import create_output_panel
from modules.ui_components import FormGroup, FormRow, ResizeHandleRow
from modules.ui_generation import GenerationTab

import gradio as gr  # isort: skip

RESIZE_MODES: list[Any] = ["Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"]
FILLS: list[Any] = ["fill", "original", "latent noise", "latent nothing"]
MODES = ("img2img", "inpaint", "inpaint_upload", "batch")
PICTURES = ("img2img_image", "img2maskimg", "img_inpaint_base", "img_inpaint_mask")


def _pictures() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the tabs with the init picture hold, the name of the tab in use first; and the tabs by name."""
    extra: dict[str, Any] = {"mode": gr.State("img2img")}
    common = {"interactive": True, "type": "pil", "show_label": False, "height": 480}
    plain: dict[str, Any] = {**gradio_versions.UPLOAD, **common}
    with gr.Tabs(elem_id="mode_img2img"):
        with gr.TabItem("img2img", id="img2img", elem_id="img2img_img2img_tab") as first:
            extra["img2img_image"] = gradio_versions.editable_picture(
                label="Image for img2img", elem_id="img2img_image", image_mode="RGBA", **common
            )
        with gr.TabItem("Inpaint", id="inpaint", elem_id="img2img_inpaint_tab") as inpaint:
            extra["img2maskimg"] = gradio_versions.masked_picture(
                label="Image for inpainting with mask", elem_id="img2maskimg", image_mode="RGBA", **common
            )
        with gr.TabItem("Inpaint upload", id="inpaint_upload", elem_id="img2img_inpaint_upload_tab") as upload:
            extra["img_inpaint_base"] = gr.Image(label="Image", elem_id="img_inpaint_base", **plain)
            extra["img_inpaint_mask"] = gr.Image(label="Mask", elem_id="img_inpaint_mask", image_mode="RGBA", **plain)
        with gr.TabItem("Batch", id="batch", elem_id="img2img_batch_tab") as batch:
            hidden: dict[str, Any] = shared.hide_dirs
            for key, label, elem_id in (
                ("batch_input_dir", "Input directory", "img2img_batch_input_dir"),
                ("batch_output_dir", "Output directory", "img2img_batch_output_dir"),
                ("batch_mask_dir", "Inpaint batch mask directory", "img2img_batch_inpaint_mask_dir"),
            ):
                extra[key] = gr.Textbox(label=label, elem_id=elem_id, **hidden)
    tabs: dict[str, Any] = dict(zip(MODES, (first, inpaint, upload, batch), strict=True))
    for mode, item in tabs.items():
        item.select(lambda mode=mode: mode, inputs=[], outputs=[extra["mode"]], show_progress="hidden")
    return extra, tabs


def _inpaint_controls(tab: GenerationTab, tabs: dict[str, Any]) -> None:
    """Shown in the tabs that have masks."""
    with FormGroup(elem_id="inpaint_controls", visible=False) as group:
        tab.slider("mask_blur", "Mask blur", (0, 64, 1), 4, "Mask blur")
        radios: tuple[tuple[Any, ...], ...] = (
            ("inpainting_mask_invert", "Mask mode", ["Inpaint masked", "Inpaint not masked"], "Inpaint masked",
             "Mask mode", "img2img_mask_mode"),
            ("inpainting_fill", "Masked content", FILLS, "original", "Masked content", "img2img_inpainting_fill"),
            ("inpaint_full_res", "Inpaint area", ["Whole picture", "Only masked"], "Whole picture", "Inpaint area",
             "img2img_inpaint_full_res"),
        )  # fmt: skip
        for key, label, choices, value, target, elem_id in radios:
            radio = gr.Radio(label=label, choices=choices, value=value, type="index", elem_id=elem_id)
            tab.add(key, radio, target, api="")
        padding = ("Only masked padding, pixels", (0, 256, 4), 32, "Masked area padding")
        tab.slider("inpaint_full_res_padding", *padding)
        tab.section("inpaint")
    for mode, item in tabs.items():
        shown = mode != "img2img"
        item.select(lambda shown=shown: gr.update(visible=shown), inputs=[], outputs=[group], show_progress="hidden")


def _size(tab: GenerationTab, extra: dict[str, Any]) -> None:
    extra["scale_tab"] = gr.State(0)
    with gr.Tabs(elem_id="img2img_tabs_resize"):
        with gr.Tab(label="Resize to", id="to", elem_id="img2img_tab_resize_to") as to:
            tab.dimensions()
        with gr.Tab(label="Resize by", id="by", elem_id="img2img_tab_resize_by") as by:
            extra["scale_by"] = gr.Slider(0.05, 4.0, value=1.0, step=0.05, label="Scale", elem_id="img2img_scale")
    for index, item in enumerate((to, by)):
        item.select(lambda index=index: index, inputs=[], outputs=[extra["scale_tab"]], show_progress="hidden")


def _run(request: Any, extra: dict[str, Any], settings: dict[str, Any], args: tuple[Any, ...]) -> Any:
    pictures = {x: extra.pop(x) for x in PICTURES}
    return img2img.img2img(request, extra.pop("mode"), pictures, {**settings, **extra}, args)


def create(runner: Any) -> Any:
    """The tab as its own page."""
    runner.initialize_scripts(is_img2img=True)
    with gr.Blocks(analytics_enabled=False) as page:
        tab = GenerationTab("img2img", runner)
        tab.toprow()
        with gr.Tabs(elem_id="img2img_extra_tabs"), gr.Tab("Generation"), ResizeHandleRow(equal_height=False):
            with gr.Column(variant="compact", elem_id="img2img_settings"):
                runner.prepare_ui()
                tab.section("prompt")
                extra, tabs = _pictures()
                with FormRow():
                    radio = gr.Radio(
                        label="Resize mode",
                        elem_id="resize_mode",
                        choices=RESIZE_MODES,
                        type="index",
                        value=RESIZE_MODES[0],
                    )
                    tab.add("resize_mode", radio)
                tab.section("image")
                tab.sampler()
                with gr.Row(elem_id="img2img_accordions", elem_classes="accordions"):
                    tab.section("accordions")
                tab.section("checkboxes")
                _size(tab, extra)
                tab.slider("denoising_strength", "Denoising strength", (0, 1, 0.01), 0.75, "Denoising strength")
                tab.section("denoising")
                tab.slider("cfg_scale", "CFG Scale", (1, 30, 0.5), 7, "CFG scale")
                tab.section("cfg")
                tab.seed()
                tab.batch_of_sections(("batch", "override_settings"))
                tab.scripts()
                _inpaint_controls(tab, tabs)
            output = create_output_panel("img2img")
        tab.connect(_run, extra, output)
        tab.connect_paste(extra["img2img_image"])
    return page
