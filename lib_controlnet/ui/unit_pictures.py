"""The pictures of one unit: its own, its masks, those of a batch, and the preprocessor's map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..core.modes import InputMode
from .gradio_compat import (
    files_input,
    not_saved,
    picture_input,
    picture_output,
    small_button,
    webcam_toggle,
)
from .img2img_source import LABEL

HEIGHT = 300
SINGLE = "single"
"""The tab of the pictures that holds the one picture of a unit."""


@dataclass
class PictureWidgets:
    """What stands around the pictures; the pictures themselves are arguments of the script."""

    buttons: dict[str, Any]
    preview_group: Any
    pose: Any
    tabs: Any
    take_as_map: Any
    made: Any
    pose_group: Any
    draw_pose: Any
    cancel: Any


def build_pictures(values: dict[str, Any], prefix: str, pose_editor: str) -> PictureWidgets:
    """Makes the pictures at this place of the page, those of FIELDS into `values`.

    `pose_editor`: the class of the button that opens it, which tells the page's script whose it is; "" for none.
    """
    with gr.Row(elem_classes=["cnet-image-row"], equal_height=False):
        with gr.Column(elem_classes=["cnet-input-image-group"]):
            tabs = _inputs(values, prefix)
        preview_group, made, *preview = _preview(values, prefix, pose_editor)
    values["region_mask"] = picture_input(
        "Effective region mask: white = the unit acts, black = it does not",
        elem_id=f"{prefix}_effective_region_mask",
        elem_classes=["cnet-region-mask"],
        height=HEIGHT,
        visible=False,
    )
    buttons = _buttons(prefix)
    # clicked by the page's script, which has given the unit a picture that is a map already
    take = gr.Button("Take as map", elem_id=f"{prefix}_take_as_map", elem_classes=["cnet-unseen"])
    pose, *rest = preview
    return PictureWidgets(buttons, preview_group, pose, tabs, take, made, *rest)


def _inputs(values: dict[str, Any], prefix: str) -> Any:
    values["input_mode"] = not_saved(
        gr.Textbox(InputMode.simple.value, visible=False, label="Input mode", elem_id=f"{prefix}_input_mode")
    )
    with gr.Tabs(elem_id=f"{prefix}_input_tabs") as tabs:
        with gr.Tab("Single Image", id=SINGLE) as single:
            values["image"] = picture_input(
                "Image", elem_id=f"{prefix}_input_image", elem_classes=["cnet-image"], height=HEIGHT
            )
        with gr.Tab("Mask", id="mask") as mask:
            values["mask"] = picture_input(
                "Mask: white or drawn = masked",
                elem_id=f"{prefix}_mask_image",
                elem_classes=["cnet-mask-image"],
                height=HEIGHT,
            )
        with gr.Tab("Batch", id="batch") as batch:
            _batch(values, prefix)
        with gr.Tab("Multi-Inputs", id="merge") as merge:
            values["merge_images"] = files_input(
                "Pictures that act together, each with its part of the weight", elem_id=f"{prefix}_merge_input"
            )
    for tab, mode in ((single, InputMode.simple), (mask, InputMode.simple), (batch, InputMode.batch)):
        tab.select(lambda chosen=mode.value: chosen, None, [values["input_mode"]], queue=False, show_progress="hidden")
    merge.select(lambda: InputMode.merge.value, None, [values["input_mode"]], queue=False, show_progress="hidden")
    return tabs


def _batch(values: dict[str, Any], prefix: str) -> None:
    values["batch_images"] = files_input("Pictures, one generation for each", elem_id=f"{prefix}_batch_input")
    values["batch_dir"] = not_saved(
        gr.Textbox(
            "",
            label="or Input Directory",
            placeholder="a folder on the server",
            elem_id=f"{prefix}_batch_image_dir",
        )
    )
    values["output_dir"] = not_saved(
        gr.Textbox(
            "",
            label="Output Directory",
            placeholder="empty: where the WebUI saves",
            elem_id=f"{prefix}_batch_output_dir",
        )
    )
    values["loopback"] = gr.Checkbox(
        label="[Batch Loopback] go on from the first result of each turn",
        value=False,
        elem_id=f"{prefix}_controlnet_loopback_checkbox",
    )


def _preview(values: dict[str, Any], prefix: str, pose_editor: str) -> tuple[Any, ...]:
    """The group, what is said of the map, the pose's text, its group and button, and the button that stops."""
    with gr.Column(visible=False, elem_classes=["cnet-preview-group"], elem_id=f"{prefix}_preview_group") as group:
        values["preview"] = picture_output(
            LABEL,
            elem_id=f"{prefix}_generated_image",
            elem_classes=["cnet-generated-image-group"],
            height=HEIGHT,
        )
        made = gr.HTML("", elem_id=f"{prefix}_made", elem_classes=["cnet-made"])
        with gr.Row(elem_classes=["cnet-buttons"]):
            values["use_preview"] = not_saved(
                gr.Checkbox(
                    label="Preview as Input", value=False, elem_id=f"{prefix}_controlnet_preview_as_input_checkbox"
                )
            )
            cancel = small_button("Stop", "Stop the preprocessor that runs", elem_id=f"{prefix}_cancel_preprocessor")
            small_button("Over the result", "Lay the map over the picture in the gallery", elem_id=f"{prefix}_overlay")
        pose_group = gr.Accordion("Pose", open=False, visible=False, elem_id=f"{prefix}_pose_group")
        with pose_group:
            pose = not_saved(
                gr.Textbox("", label="OpenPose JSON", lines=4, max_lines=10, elem_id=f"{prefix}_pose_json")
            )
            with gr.Row(elem_classes=["cnet-buttons"]):
                small_button(
                    "Edit pose",
                    "Drag the joints",
                    elem_id=f"{prefix}_edit_pose",
                    elem_classes=["cnet-edit-pose", pose_editor],
                    visible=bool(pose_editor),
                )
                draw_pose = small_button("Draw", "Draw the JSON as the map", elem_id=f"{prefix}_draw_pose")
                small_button("Upload JSON", "Take the pose of a file", elem_id=f"{prefix}_load_pose")
                small_button(
                    "Download JSON",
                    "Save the pose as a file",
                    elem_id=f"{prefix}_save_pose",
                    elem_classes=["cnet-save-pose"],
                )
    return group, made, pose, pose_group, draw_pose, cancel


def _buttons(prefix: str) -> dict[str, Any]:
    """The buttons below the pictures by name; those that have no handler here are the page script's."""
    texts = {
        "draw": ("Draw", "Draw on the picture, its mask or the unit's region", "draw"),
        "new_canvas": ("New canvas", "Draw on empty paper of the job's size", "controlnet_open_new_canvas_button"),
        "send_size": ("Send size", "Send the picture's size to Width and Height", "controlnet_send_dimensions"),
        "copy_result": ("Take result", "Take the picture shown in the gallery", "take_result"),
    }
    with gr.Row(elem_classes=["controlnet_image_controls", "cnet-buttons"]):
        buttons = {
            name: small_button(text, tip, elem_id=f"{prefix}_{elem}", elem_classes=[f"cnet-{name.replace('_', '-')}"])
            for name, (text, tip, elem) in texts.items()
        }
        if webcam_toggle(True) is not None:
            buttons["webcam"] = small_button(
                "Webcam", "Take the picture with the webcam, or upload again", elem_id=f"{prefix}_controlnet_webcam"
            )
    return buttons
