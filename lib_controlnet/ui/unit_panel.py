"""The widgets of one unit, and what they say as a unit's fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.arguments import FIELDS
from ..core.control_types import ALL, NO_MODEL, NO_PREPROCESSOR, models_of, preprocessors_of, usable_types
from ..core.modes import ControlMode, HiResOption, ResizeMode, UnionType
from ..engine.services import PageServices, Services
from .curves import ScheduleEditor, build_schedule
from .drawing import DrawingWidgets, build_drawing
from .gradio_compat import not_saved, small_button, tool_button
from .image_prompts import ImagePromptEditor, build_image_prompt
from .layers import LayerEditor, build_editor
from .measuring import build_measuring
from .problems import Problem, build_problem
from .sliders import HIDDEN, slider_options
from .unit_pictures import PictureWidgets, build_pictures

SETTING: dict[str, Any] = {"elem_classes": ["cnet-setting"]}


@dataclass
class UnitWidgets:
    """Every component of one unit: those of FIELDS, which are the script's arguments, and those around them."""

    values: dict[str, Any]
    pictures: PictureWidgets
    drawing: DrawingWidgets
    show_preview: Any
    control_type: Any
    absent: Any
    run: Any
    refresh: Any
    notes: NoteWidgets
    problem: Problem
    layers: LayerEditor
    schedule: ScheduleEditor
    image_prompt: ImagePromptEditor

    def arguments(self) -> list[Any]:
        """The components of FIELDS in order."""
        return [self.values[name] for name in FIELDS]


@dataclass
class NoteWidgets:
    """What the unit says beforehand. `recheck` is clicked by the page's script when the checkpoint has changed."""

    text: Any
    offer: Any
    download: Any
    stop: Any
    recheck: Any


def build_unit(services: PageServices, tab: str, is_img2img: bool, index: int) -> UnitWidgets:
    """Makes the widgets of unit `index` at this place of the page. Ids and labels are the peers'."""
    prefix = unit_prefix(tab, index)
    values: dict[str, Any] = {}
    pictures = build_pictures(values, prefix, _pose_editor(services))
    drawing = build_drawing(prefix)
    problem = build_problem(prefix, index)
    show_preview = _switches(values, prefix, is_img2img)
    control_type = _control_type(services, prefix)
    absent = gr.HTML("", elem_id=f"{prefix}_absent", elem_classes=["cnet-absent"])
    run, refresh = _choices(values, services, prefix)
    notes = _notes(prefix)
    _numbers(values, prefix)
    _modes(values, prefix, is_img2img)
    image_prompt = build_image_prompt(values, prefix)
    schedule = build_schedule(values, prefix, is_img2img)
    build_measuring(prefix, services.can_caption())
    layers = build_editor(prefix)
    values["layer_weights"] = layers.weights
    chosen = (show_preview, control_type, absent, run, refresh, notes, problem)
    return UnitWidgets(values, pictures, drawing, *chosen, layers, schedule, image_prompt)


def _pose_editor(services: PageServices) -> str:
    if services.setting("controlnet_disable_openpose_edit", False):
        return ""
    return "cnet-external-pose" if services.has_pose_editor() else "cnet-own-pose"


def unit_prefix(tab: str, index: int) -> str:
    """The beginning of the ids of a unit's widgets."""
    return f"{tab}_controlnet_ControlNet-{index}"


def _notes(prefix: str) -> NoteWidgets:
    text = gr.HTML("", elem_id=f"{prefix}_notes", elem_classes=["cnet-notes"])
    with gr.Row(elem_classes=["cnet-buttons"]):
        offer = small_button(
            "Download a model", "Get it from huggingface.co", elem_id=f"{prefix}_download_model", visible=False
        )
        download = small_button(
            "Download weights", "Get what the preprocessor lacks", elem_id=f"{prefix}_download_weights", visible=False
        )
        stop = small_button("Stop download", "It can be resumed", elem_id=f"{prefix}_stop_download", visible=False)
        recheck = gr.Button("Check again", elem_id=f"{prefix}_recheck", elem_classes=["cnet-recheck", "cnet-unseen"])
    return NoteWidgets(text, offer, download, stop, recheck)


def _switches(values: dict[str, Any], prefix: str, is_img2img: bool) -> Any:
    def checkbox(label: str, name: str, value: bool = False, visible: bool = True, **options: Any) -> gr.Checkbox:
        elem_id = f"{prefix}_controlnet_{name}_checkbox"
        return gr.Checkbox(label=label, value=value, visible=visible, elem_id=elem_id, **options)

    with gr.Row(elem_classes=["controlnet_main_options"]):
        values["enabled"] = checkbox("Enable", "enable", elem_classes=["cnet-unit-enabled"])
        values["low_vram"] = checkbox("Low VRAM", "low_vram")
        values["pixel_perfect"] = checkbox("Pixel Perfect", "pixel_perfect")
        show_preview = not_saved(checkbox("Allow Preview", "preprocessor_preview", elem_classes=["cnet-allow-preview"]))
        values["use_region"] = not_saved(checkbox("Effective Region Mask", "effective_region_mask"))
        values["save_map"] = checkbox("Add map to results", "save_detected_map", value=True)
        values["own_image"] = checkbox(
            "Upload independent control image", "same_img2img", value=not is_img2img, visible=is_img2img
        )
        values["crop_to_mask"] = checkbox(
            "Crop input image based on A1111 mask", "crop_input_image", value=True, visible=is_img2img
        )
    return show_preview


def _control_type(services: Services, prefix: str) -> Any:
    specs: list[Any] = [entry.spec for entry in services.annotators.entries]
    types: list[Any] = list(usable_types(specs, services.library.names()))
    as_list = bool(services.setting("controlnet_control_type_dropdown", False))
    kind = gr.Dropdown if as_list else gr.Radio
    with gr.Row(elem_classes=["controlnet_control_type", "controlnet_row"]):
        return not_saved(
            kind(
                types,
                label="Control Type",
                value=ALL,
                elem_id=f"{prefix}_controlnet_type_filter_{'dropdown' if as_list else 'radio'}",
                elem_classes=["controlnet_control_type_filter_group"],
            )
        )


def _choices(values: dict[str, Any], services: Services, prefix: str) -> tuple[Any, Any]:
    with gr.Row(elem_classes=["controlnet_preprocessor_model", "controlnet_row"]):
        values["preprocessor"] = not_saved(
            gr.Dropdown(
                preprocessor_labels(services, ALL),
                label="Preprocessor",
                value=NO_PREPROCESSOR,
                elem_id=f"{prefix}_controlnet_preprocessor_dropdown",
            )
        )
        run = tool_button(
            "▶",
            "Run the preprocessor and show its map",
            elem_id=f"{prefix}_controlnet_trigger_preprocessor",
            elem_classes=["cnet-run-preprocessor"],
        )
        values["model"] = not_saved(
            gr.Dropdown(
                models_of(ALL, services.library.names()),
                label="Model",
                value=NO_MODEL,
                elem_id=f"{prefix}_controlnet_model_dropdown",
            )
        )
        refresh = tool_button("↻", "Look for new model files", elem_id=f"{prefix}_controlnet_refresh_models")
    return run, refresh


def preprocessor_labels(services: Services, control_type: str) -> list[str]:
    """The labels of a type's preprocessors, "none" first."""
    specs: list[Any] = [entry.spec for entry in services.annotators.entries]
    return [spec.label for spec in preprocessors_of(control_type, specs)]


def _numbers(values: dict[str, Any], prefix: str) -> None:
    def slider(label: str, name: str, value: float, high: float, step: float) -> gr.Slider:
        elem_id = f"{prefix}_controlnet_{name}_slider"
        return gr.Slider(
            label=label,
            minimum=0.0,
            maximum=high,
            step=step,
            value=value,
            elem_id=elem_id,
            elem_classes=["cnet-setting"],
        )

    values["weight"] = slider("Control Weight", "control_weight", 1.0, 2.0, 0.01)
    with gr.Row(elem_classes=["controlnet_weight_steps", "controlnet_row"]):
        values["guidance_start"] = slider("Starting Control Step", "start_control_step", 0.0, 1.0, 0.01)
        values["guidance_end"] = slider("Ending Control Step", "ending_control_step", 1.0, 1.0, 0.01)
    names = ("preprocessor_resolution", "threshold_A", "threshold_B")
    for field, name in zip(("resolution", "threshold_a", "threshold_b"), names, strict=True):
        elem_id = f"{prefix}_controlnet_{name}_slider"
        values[field] = not_saved(gr.Slider(**slider_options(None), elem_id=elem_id, **SETTING))
        values[field].value = HIDDEN


def _modes(values: dict[str, Any], prefix: str, is_img2img: bool) -> None:
    def radio(label: str, name: str, kind: Any, value: Any, visible: bool = True) -> gr.Radio:
        elem_id = f"{prefix}_controlnet_{name}_radio"
        choices = [member.value for member in kind]
        return gr.Radio(choices, label=label, value=value.value, visible=visible, elem_id=elem_id, **SETTING)

    values["control_mode"] = radio("Control Mode", "control_mode", ControlMode, ControlMode.balanced)
    values["resize_mode"] = radio(
        "Resize Mode", "resize_mode", ResizeMode, ResizeMode.crop_and_resize, visible=not is_img2img
    )
    values["union_type"] = not_saved(
        gr.Dropdown(
            [member.value for member in UnionType],
            label="Union Control Type",
            value=UnionType.unknown.value,
            visible=False,
            elem_id=f"{prefix}_controlnet_union_control_type",
        )
    )
    values["hr_option"] = radio("Hires-Fix Option", "hr_option", HiResOption, HiResOption.both, visible=not is_img2img)
