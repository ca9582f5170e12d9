"""What the txt2img and img2img tabs have in common: prompts, buttons, sliders, scripts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from modules import call_queue, gradio_versions, infotext_utils, sd_checkpoints, sd_samplers, sd_schedulers, shared
from modules.infotext_utils import PasteField
from modules.ui_common import OutputPanel, interrupt, update_generation_info
from modules.ui_components import FormGroup, FormRow, InputAccordion, ToolButton

import gradio as gr  # isort: skip

random_symbol = "\U0001f3b2"
reuse_symbol = "\u267b"
switch_values_symbol = "\u21c5"
paste_symbol = "\u2199"


class GenerationTab:
    """Widgets of one tab. `settings` become arguments of the job, in this order."""

    def __init__(self, name: str, runner: Any) -> None:
        self.name = name
        self.runner = runner
        self.settings: dict[str, Any] = {}
        self.paste_fields: list[PasteField] = []
        self.task = gr.Textbox(visible=False)

    def add(self, key: str, component: Any, target: Any = None, *, api: str | None = None) -> Any:
        """Use `component` as argument `key`; `target` is its parameter in infotexts."""
        self.settings[key] = component
        if target is not None:
            self.paste_fields.append(PasteField(component, target, api=api or key))
        return component

    def section(self, name: str) -> None:
        """Scripts that want to be here."""
        self.runner.setup_ui_for_section(name)

    def slider(self, key: str, label: str, limits: tuple[float, float, float], value: float, target: Any = None,
               elem_id: str | None = None, api: str | None = None) -> Any:  # fmt: skip
        low, high, step = limits
        name = elem_id or f"{self.name}_{key}"
        component = gr.Slider(minimum=low, maximum=high, step=step, label=label, value=value, elem_id=name)
        return self.add(key, component, target, api=api)

    def toprow(self) -> None:
        """Prompts on the left, buttons on the right."""
        with gr.Row(elem_id=f"{self.name}_toprow", variant="compact"):
            with gr.Column(elem_id=f"{self.name}_prompt_container", scale=6):
                for key, label, target in (
                    ("prompt", "Prompt", "Prompt"),
                    ("negative_prompt", "Negative prompt", "Negative prompt"),
                ):
                    elem_id = f"{self.name}_{'prompt' if key == 'prompt' else 'neg_prompt'}"
                    box = gr.Textbox(label=label, elem_id=elem_id, show_label=False, lines=3, placeholder=label,
                                     elem_classes=["prompt"])  # fmt: skip
                    self.add(key, box, target)
            with gr.Column(scale=1, elem_id=f"{self.name}_actions_column"):
                with gr.Row(elem_id=f"{self.name}_generate_box", elem_classes="generate-box"):
                    self.interrupt = gr.Button("Interrupt", elem_id=f"{self.name}_interrupt")
                    self.skip = gr.Button("Skip", elem_id=f"{self.name}_skip")
                    self.submit = gr.Button("Generate", elem_id=f"{self.name}_generate", variant="primary")
                with gr.Row(elem_id=f"{self.name}_tools"):
                    self.paste = ToolButton(
                        value=paste_symbol,
                        elem_id="paste" if self.name == "txt2img" else f"{self.name}_paste",
                        tooltip="Read generation parameters from prompt, or from the last picture if it is empty",
                    )
        self.skip.click(shared.state.skip, inputs=[], outputs=[])
        self.interrupt.click(interrupt, inputs=[], outputs=[])

    def sampler(self) -> None:
        with FormRow(elem_id=f"sampler_selection_{self.name}"):
            names = sd_samplers.visible_sampler_names()
            sampler = gr.Dropdown(
                label="Sampling method", elem_id=f"{self.name}_sampling", choices=names, value=names[0]
            )
            self.add("sampler_name", sampler, sd_samplers.get_sampler_from_infotext)
            labels = [x.label for x in sd_schedulers.schedulers]
            scheduler = gr.Dropdown(
                label="Schedule type", elem_id=f"{self.name}_scheduler", choices=labels, value=labels[0]
            )
            self.add("scheduler", scheduler, sd_samplers.get_scheduler_from_infotext)
            self.slider("steps", "Sampling steps", (1, 150, 1), 20, "Steps")
        self.section("sampler")

    def dimensions(self) -> None:
        size = sd_checkpoints.picture_size()
        with FormRow():
            with gr.Column(elem_id=f"{self.name}_column_size", scale=4):
                width = self.slider("width", "Width", (64, 2048, 8), size, "Size-1")
                height = self.slider("height", "Height", (64, 2048, 8), size, "Size-2")
            with gr.Column(elem_id=f"{self.name}_dimensions_row", scale=1, elem_classes="dimensions-tools"):
                switch = ToolButton(
                    value=switch_values_symbol, elem_id=f"{self.name}_res_switch_btn", tooltip="Switch width/height"
                )
            with gr.Column(elem_id=f"{self.name}_column_batch"):
                self.slider("n_iter", "Batch count", (1, 100, 1), 1, elem_id=f"{self.name}_batch_count")
                self.slider("batch_size", "Batch size", (1, 8, 1), 1, "Batch size", elem_id=f"{self.name}_batch_size")
        switch.click(lambda w, h: (h, w), inputs=[width, height], outputs=[width, height], show_progress="hidden")
        self.section("dimensions")

    def seed(self) -> None:
        with FormRow(elem_id=f"{self.name}_seed_row"):
            seed = self.add("seed", gr.Number(label="Seed", value=-1, elem_id=f"{self.name}_seed", precision=0), "Seed")
            dice = ToolButton(
                random_symbol, elem_id=f"{self.name}_random_seed", tooltip="Set seed to -1: random every time"
            )
            self.reuse = ToolButton(
                reuse_symbol, elem_id=f"{self.name}_reuse_seed", tooltip="Reuse seed of the last picture"
            )
            dice.click(lambda: -1, inputs=[], outputs=[seed], show_progress="hidden")
        with InputAccordion(False, label="Variation", elem_id=f"{self.name}_subseed_show") as shown:
            number = gr.Number(label="Variation seed", value=-1, elem_id=f"{self.name}_subseed", precision=0)
            self.add("subseed", number, "Variation seed")
            limits = (0, 1, 0.01)
            self.slider("subseed_strength", "Variation strength", limits, 0, "Variation seed strength")
        self.variation = shown
        self.section("seed")

    def batch_of_sections(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.section(name)

    def scripts(self) -> None:
        with FormRow(elem_id=f"{self.name}_override_settings_row"):
            overrides = gr.Dropdown(
                [], label="Override settings", visible=False, elem_id=f"{self.name}_override_settings", multiselect=True
            )
            self.add("override_settings", overrides, _override_settings, api="")
        with FormGroup(elem_id=f"{self.name}_script_container"):
            self.custom_inputs = self.runner.setup_ui()

    def connect(self, run: Callable[..., Any], extra: dict[str, Any], output: OutputPanel) -> None:
        """Let Generate call `run(request, extra, settings, script arguments)` in the job queue."""
        extra_names, names = list(extra), list(self.settings)

        def handler(id_task: str, request: gr.Request, *values: Any) -> Any:
            further = dict(zip(extra_names, values, strict=False))
            settings = dict(zip(names, values[len(extra_names) :], strict=False))
            return run(request, further, settings, values[len(extra_names) + len(names) :])

        wrapped = call_queue.wrap_gradio_gpu_call(handler, extra_outputs=[None, "", "", ""])
        arguments = {
            "fn": wrapped,
            **gradio_versions.script("submit" if self.name == "txt2img" else "submit_img2img"),
            "inputs": [self.task, *extra.values(), *self.settings.values(), *self.custom_inputs],
            "outputs": [output.gallery, output.generation_info, output.infotext, output.saved, output.html_log],
            "show_progress": "hidden",
        }
        self.submit.click(**arguments, api_name=self.name)
        self.settings["prompt"].submit(**arguments, api_name=False)
        self.reuse.click(
            _last_seed, inputs=[output.generation_info], outputs=[self.settings["seed"]], show_progress="hidden"
        )
        output.gallery.select(
            _selected,
            inputs=[output.generation_info, output.infotext],
            outputs=[output.infotext],
            show_progress="hidden",
        )

    def connect_paste(self, init_image: Any) -> None:
        """Paste button, and what the API's `infotext` field fills."""
        fields = [*self.paste_fields, *self.runner.infotext_fields]
        infotext_utils.add_paste_fields(self.name, init_image, fields, self.settings["override_settings"])
        made = infotext_utils.paste_fields[self.name]["fields"]
        infotext_utils.connect_paste(
            self.paste, made, self.settings["prompt"], self.settings["override_settings"], self.name
        )


def _override_settings(params: dict[str, Any]) -> Any:
    pairs = [f"{name}: {value}" for name, _, value in infotext_utils.get_override_settings(params)]
    return gr.update(value=pairs, choices=pairs, visible=bool(pairs))


def _selected(generation_info: str, html_info: str, event: gr.SelectData) -> str:
    return update_generation_info(generation_info, html_info, _number(event.index))[0]


def _number(index: int | tuple[int, int]) -> int:
    return index if isinstance(index, int) else index[0]


def _last_seed(generation_info: str) -> int:
    try:
        return int(json.loads(generation_info)["all_seeds"][0])
    except (ValueError, KeyError, TypeError):
        return random.randrange(2**31)
