"""The txt2img tab."""

from __future__ import annotations

from typing import Any

from modules import sd_samplers, sd_schedulers, shared, txt2img, ui_first_run
from modules.ui_common import create_output_panel
from modules.ui_components import FormRow, InputAccordion, ResizeHandleRow
from modules.ui_generation import GenerationTab

import gradio as gr  # isort: skip

SAME_SAMPLER, SAME_SCHEDULER = "Use same sampler", "Use same scheduler"


def _hires(tab: GenerationTab) -> None:
    with InputAccordion(False, label="Hires. fix", elem_id="txt2img_hr") as enable:
        tab.add("enable_hr", enable, _uses_hires)
        with FormRow():
            choices = [*shared.latent_upscale_modes, *(x.name for x in shared.sd_upscalers)]
            upscaler = gr.Dropdown(label="Upscaler", elem_id="txt2img_hr_upscaler", choices=choices, value="Latent")
            tab.add("hr_upscaler", upscaler, "Hires upscaler")
            tab.slider("hr_second_pass_steps", "Hires steps", (0, 150, 1), 0, "Hires steps", "txt2img_hires_steps")
            tab.slider("denoising_strength", "Denoising strength", (0, 1, 0.01), 0.7, "Denoising strength")
        with FormRow():
            tab.slider("hr_scale", "Upscale by", (1, 4, 0.05), 2, "Hires upscale")
            tab.slider("hr_resize_x", "Resize width to", (0, 2048, 8), 0, "Hires resize-1")
            tab.slider("hr_resize_y", "Resize height to", (0, 2048, 8), 0, "Hires resize-2")
        with FormRow():
            samplers = [SAME_SAMPLER, *sd_samplers.visible_sampler_names()]
            sampler = gr.Dropdown(
                label="Hires sampling method", elem_id="hr_sampler", choices=samplers, value=SAME_SAMPLER
            )
            tab.add("hr_sampler_name", sampler, "Hires sampler")
            labels = [SAME_SCHEDULER, *(x.label for x in sd_schedulers.schedulers)]
            scheduler = gr.Dropdown(
                label="Hires schedule type", elem_id="hr_scheduler", choices=labels, value=SAME_SCHEDULER
            )
            tab.add("hr_scheduler", scheduler, "Hires schedule type")


def _uses_hires(params: dict[str, Any]) -> bool:
    return "Denoising strength" in params and ("Hires upscale" in params or "Hires upscaler" in params)


def _run(request: Any, _extra: dict[str, Any], settings: dict[str, Any], args: tuple[Any, ...]) -> Any:
    for key, same in (("hr_sampler_name", SAME_SAMPLER), ("hr_scheduler", SAME_SCHEDULER)):
        settings[key] = None if settings[key] == same else settings[key]
    return txt2img.txt2img(request, settings, args)


def create(runner: Any) -> Any:
    """The tab as its own page."""
    runner.initialize_scripts(is_img2img=False)
    with gr.Blocks(analytics_enabled=False) as page:
        tab = GenerationTab("txt2img", runner)
        tab.toprow()
        ui_first_run.build()
        with gr.Tabs(elem_id="txt2img_extra_tabs"), gr.Tab("Generation"), ResizeHandleRow(equal_height=False):
            with gr.Column(variant="compact", elem_id="txt2img_settings"):
                runner.prepare_ui()
                tab.batch_of_sections(("prompt", "image"))
                tab.sampler()
                with gr.Row(elem_id="txt2img_accordions", elem_classes="accordions"):
                    _hires(tab)
                    tab.section("accordions")
                tab.section("checkboxes")
                tab.dimensions()
                tab.slider("cfg_scale", "CFG Scale", (1, 30, 0.5), 7, "CFG scale")
                tab.batch_of_sections(("cfg", "denoising"))
                tab.seed()
                tab.batch_of_sections(("batch", "override_settings"))
                tab.scripts()
            output = create_output_panel("txt2img")
        tab.connect(_run, {}, output)
        tab.connect_paste(None)
    return page
