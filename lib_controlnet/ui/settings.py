"""The settings page "ControlNet". Only options that something here reads are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from ..core.settings import MODEL_ORDERS

SECTION = ("control_net", "ControlNet")
TRUSTED_FILES = "controlnet_trusted_files"
ON_THE_PAGE_ONLY: dict[str, Any] = {"restrict_api": True}
"""Of options that open a door (code, downloads, training, folders): no request to the API may change them."""


def register(shared: Any, script_callbacks: Any) -> None:
    """Adds our options to the host's; called while the host builds its settings page."""
    del script_callbacks  # the caller already is the host's `ui_settings` callback
    info = shared.OptionInfo

    def add(key: str, option: Any) -> None:
        shared.opts.add_option(key, option)

    def slider(default: float, label: str, low: float, high: float, step: float) -> Any:
        sizes = {"minimum": low, "maximum": high, "step": step}
        return info(default, label, gr.Slider, sizes, section=SECTION)

    add("control_net_unit_count", slider(3, "Multi-ControlNet: ControlNet unit number", 1, 10, 1).needs_reload_ui())
    _add_models(add, info, slider)
    add("control_net_inpaint_blur_sigma", slider(7, "inpaint_only: blur of the mask's edge (sigma)", 0, 64, 1))
    _add_results(add, info)
    _add_measuring(add, info, slider)
    _add_training(add, info)
    add(
        "control_net_allow_script_control",
        info(False, "Allow other scripts to control this extension (p.control_net_...)", section=SECTION),
    )
    add("control_net_sync_field_args", info(True, "Paste ControlNet parameters in infotext", section=SECTION))
    _add_panel(add, info)


def _add_results(add: Callable[[str, Any], None], info: Any) -> None:
    """What a job gives beside its pictures."""
    add("control_net_no_detectmap", info(False, "Do not append detectmap to output", section=SECTION))
    add("control_net_detectmap_autosaving", info(False, "Allow detectmap auto saving", section=SECTION))
    add(
        "control_net_detectedmap_dir",
        info("detected_maps", "Directory for detected maps auto saving", section=SECTION, **ON_THE_PAGE_ONLY),
    )
    add(
        "controlnet_show_batch_images_in_ui",
        info(False, "Show all pictures of a batch in the gallery, not only the last", section=SECTION),
    )
    add(
        "controlnet_increment_seed_during_batch",
        info(False, "Let the seeds go on from picture to picture of a batch", section=SECTION),
    )


def _add_measuring(add: Callable[[str, Any], None], info: Any, slider: Callable[..., Any]) -> None:
    """How well pictures follow their maps; docs/measure.md."""
    text = "Measure how well each picture follows the maps of its units (runs their preprocessors on it once more)"
    add("controlnet_measure", info(False, text, section=SECTION))
    best = "Show a job's pictures best first, by how well they follow, where they are measured"
    add("controlnet_measure_sort", info(False, best, section=SECTION))
    maps = "Append maps of where each picture follows (green) and where not (red), where it is measured"
    add("controlnet_measure_maps", info(False, maps, section=SECTION))
    add("controlnet_measure_opacity", slider(0.7, "Opacity of these maps over the picture", 0, 1, 0.05))


def _add_training(add: Callable[[str, Any], None], info: Any) -> None:
    text = "Allow training (page Train and API): it reads and writes folders of this computer that the page names"
    add("controlnet_allow_training", info(False, text, section=SECTION, **ON_THE_PAGE_ONLY))


def _add_models(add: Callable[[str, Any], None], info: Any, slider: Callable[..., Any]) -> None:
    """Files: where they are, how they are listed, what is kept of them."""
    extra = "Extra path to scan for ControlNet models"
    add("control_net_models_path", info("", extra, section=SECTION, **ON_THE_PAGE_ONLY))
    add(
        "control_net_models_sort_models_by",
        info("name", "Sort models by (date: newest first)", gr.Radio, {"choices": list(MODEL_ORDERS)}, section=SECTION),
    )
    add(
        "control_net_models_name_filter",
        info("", "List only models whose name contains this; refresh the lists after a change", section=SECTION),
    )
    weights = "Path to the weights of preprocessors"
    add("control_net_modules_path", info("", weights, section=SECTION, **ON_THE_PAGE_ONLY))
    download = "Download missing weights of preprocessors from huggingface.co when they are needed"
    add("controlnet_download_weights", info(False, download, section=SECTION, **ON_THE_PAGE_ONLY))
    trusted = "Trusted files: the sha256 of each file with code (TorchScript) that may run, one a line"
    add(
        TRUSTED_FILES,
        info("", trusted, gr.Textbox, {"lines": 3, "max_lines": 20}, section=SECTION, **ON_THE_PAGE_ONLY),
    )
    add("controlnet_clip_detector_on_cpu", info(False, "Run CLIP preprocessors on the CPU", section=SECTION))
    _add_memory(add, info, slider)


def _add_memory(add: Callable[[str, Any], None], info: Any, slider: Callable[..., Any]) -> None:
    """Where control models are between and during jobs; docs/memory.md says what each costs and saves."""
    cached = "Keep loaded control models in the computer's memory up to (GiB)"
    add("controlnet_model_cache_gib", slider(6, cached, 1, 64, 1))
    left = "Leave control models on the graphics card between jobs up to (GiB; 0: the card is free between jobs)"
    add("controlnet_device_cache_gib", slider(0, left, 0, 64, 0.5))
    pinned = "Page-lock control models in the computer's memory, from where a card copies them without a wait"
    add("controlnet_pinned_memory", info(True, pinned, section=SECTION))
    beside = "CUDA: compute control beside the U-Net's encoder, on a stream of its own (more memory; not with Low VRAM)"
    add("controlnet_side_stream", info(False, beside, section=SECTION))
    streams = "Low VRAM brings control models to the graphics card block after block (slower; for very small cards)"
    add("controlnet_stream_blocks", info(False, streams, section=SECTION))
    reuse = "Reuse control of earlier steps while it is expected to have changed by less than (0: never; 0.9: faster)"
    add("controlnet_reuse_control", slider(0, reuse, 0, 1, 0.05))


def _add_panel(add: Callable[[str, Any], None], info: Any) -> None:
    """How units look and what they take for granted."""
    add(
        "controlnet_ignore_noninpaint_mask",
        info(False, "Ignore mask on ControlNet input image if control type is not inpaint", section=SECTION),
    )
    add(
        "controlnet_control_type_dropdown",
        info(False, "Display control type as dropdown", section=SECTION).needs_reload_ui(),
    )
    add(
        "controlnet_disable_openpose_edit",
        info(False, "Disable openpose edit", section=SECTION).needs_reload_ui(),
    )
    add(
        "controlnet_input_thumbnail",
        info(True, "Show the unit's picture in its tab while it is on", section=SECTION),
    )
    add(
        "controlnet_legacy_sdxl_ramp",
        info(
            False,
            "SDXL: soft layer weights end at 0.56 as in sd-webui-controlnet, to repeat its seeds (ours end at 1.0)",
            section=SECTION,
        ),
    )
