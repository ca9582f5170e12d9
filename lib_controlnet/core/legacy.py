"""Every spelling of a unit's fields and choices met in other ControlNet extensions and in API clients.

Only `core/units.py` and `core/infotext.py` read these tables. Names are facts of the peers' public interfaces
(sd-webui-controlnet, Forge, reForge, Forge Classic, webuiapi, older plug-ins).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import TypeVar, cast

from .errors import UnitError
from .image_prompt import WeightType
from .modes import ControlMode, HiResOption, InputMode, ResizeMode, UnionType

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "enabled": ("enabled", "enable"),
    "preprocessor": ("module", "preprocessor"),
    "model": ("model",),
    "weight": ("weight", "control_weight"),
    "image": ("image", "input_image"),
    "mask": ("mask", "mask_image"),
    "resize_mode": ("resize_mode",),
    "resolution": ("processor_res", "resolution"),
    "threshold_a": ("threshold_a",),
    "threshold_b": ("threshold_b",),
    "guidance_start": ("guidance_start",),
    "guidance_end": ("guidance_end", "guidance", "guidance_strength"),
    "pixel_perfect": ("pixel_perfect",),
    "control_mode": ("control_mode",),
    "hr_option": ("hr_option",),
    "low_vram": ("low_vram", "lowvram"),
    "crop_to_mask": ("inpaint_crop_input_image", "crop_to_mask"),
    "save_map": ("save_detected_map", "save_map"),
    "layer_weights": ("advanced_weighting", "layer_weights"),
    "weight_schedule": ("weight_schedule",),
    "hr_weight_schedule": ("hr_weight_schedule",),
    "uncond_weight": ("uncond_weight",),
    "batch_weights": ("batch_weights",),
    "reuse_control": ("reuse_control",),
    "region_mask": ("effective_region_mask", "region_mask"),
    "ip_weight_type": ("ip_weight_type", "weight_type"),
    "ip_style_boost": ("ip_style_boost", "style_boost", "weight_style"),
    "ip_composition_boost": ("ip_composition_boost", "composition_boost", "weight_composition"),
    "ip_layer_weights": ("ip_layer_weights",),
    "ip_combine": ("ip_combine", "combine_embeds"),
    "ip_scaling": ("ip_scaling", "embeds_scaling"),
    "ip_uncond": ("ip_uncond",),
    "ip_noise": ("ip_noise",),
    "ip_shortcut": ("ip_shortcut", "weight_faceidv2"),
    "ip_lora": ("ip_lora", "lora_strength"),
    "pulid_mode": ("pulid_mode",),
    "union_type": ("union_control_type", "union_type"),
    "input_mode": ("input_mode",),
    "batch_dir": ("batch_images", "batch_image_dir", "batch_dir"),
    "output_dir": ("output_dir",),
    "loopback": ("loopback",),
    "embeddings": ("ipadapter_input", "embeddings"),
    "uncond_image": ("ip_uncond_image", "uncond_image", "image_negative"),
    "images": ("images", "multi_inputs_gallery", "batch_input_gallery"),
}
"""Our field -> the names callers give it. The first is the name said in errors when nothing was given."""

GUESS_MODE = ("guessmode", "guess_mode")
"""The boolean of 2023 that became a control mode."""

PLACEHOLDER_THRESHOLD = 64.0
"""What webuiapi and Forge's API send as both thresholds when the user chose none, whatever the preprocessor is.

Outside a slider's range it therefore means the slider's default; any other number outside is a mistake.
"""

IGNORED = frozenset(
    (
        "index",
        "is_ui",
        "batch_mask_dir",
        "batch_image_files",
        "batch_mask_gallery",
        "generated_image",
    )
)
"""Known keys without effect on one picture from one image: page state, and options of the batch tab."""

EMPTY_ONLY: Mapping[str, str] = {
    "image_fg": "send the drawing as image",
    "mask_image_fg": "send the drawing as mask",
    "use_preview_as_input": "send the map as image and none as module",
    "animatediff_batch": "send one generation for each frame",
    "batch_modifiers": "change the pictures before sending them",
    "batch_keyframe_idx": "send one generation for each frame",
    "ipa_block_weight": "send the weights as advanced_weighting",
    "invert_image": "use the module invert",
    "rgbbgr_mode": "send the picture in RGB order",
    "scribble_mode": "use one of the scribble modules",
}
"""Known keys whose non-empty value would change the picture, which we do not do: an error with this remedy."""

_E = TypeVar("_E", bound=Enum)

_WORDS: Mapping[type[Enum], Mapping[str, Enum]] = {
    ResizeMode: {
        "resize": ResizeMode.just_resize,
        "just resize (latent upscale)": ResizeMode.just_resize,
        "inner_fit": ResizeMode.crop_and_resize,
        "inner fit (scale to fit)": ResizeMode.crop_and_resize,
        "scale to fit (inner fit)": ResizeMode.crop_and_resize,
        "outer_fit": ResizeMode.resize_and_fill,
        "outer fit (shrink to fit)": ResizeMode.resize_and_fill,
        "envelope (outer fit)": ResizeMode.resize_and_fill,
    },
    ControlMode: {
        "prefer prompt": ControlMode.prompt,
        "prefer controlnet": ControlMode.control,
    },
    HiResOption: {
        "low_res_only": HiResOption.low,
        "high_res_only": HiResOption.high,
    },
    InputMode: {},
    WeightType: {  # ComfyUI_IPAdapter_plus' names where they are not the members'
        "linear": WeightType.normal,
        "standard": WeightType.normal,
    },
    UnionType: {
        "normal_map": UnionType.normal,
    },
}
"""Words beyond each member's own name and value, in lower case."""

_NUMBERS: Mapping[type[Enum], tuple[Enum, ...]] = {
    ResizeMode: (*ResizeMode, ResizeMode.just_resize),  # 3 is the host's "Just resize (latent upscale)"
    ControlMode: tuple(ControlMode),
    HiResOption: tuple(HiResOption),
    InputMode: tuple(InputMode),
    UnionType: tuple(UnionType),
}

_INTEGER = re.compile(r"[+-]?\d+(\.0*)?")


def key_name(key: object) -> str:
    """`Processor Res`, `processor-res` and `processor_res` are one name."""
    return re.sub(r"[\s\-]+", "_", str(key).strip()).lower()


def known_keys() -> tuple[str, ...]:
    """Every key that has a meaning, for "did you mean"."""
    return tuple(name for names in SPELLINGS.values() for name in names) + GUESS_MODE


def read_choice(kind: type[_E], value: object) -> _E:
    """A member, its name, value, number, an old word, or another library's member (`ResizeMode.INNER_FIT`)."""
    if isinstance(value, kind):
        return value
    if isinstance(value, Enum):
        found = _find(kind, value.value)
        return found if found is not None else _require(kind, value.name)
    return _require(kind, value)


def _require(kind: type[_E], value: object) -> _E:
    found = _find(kind, value)
    if found is None:
        choices = ", ".join(f'"{member.value}"' for member in kind)
        remedy = f"use one of {choices} or a number from 0 to {len(_NUMBERS.get(kind, tuple(kind))) - 1}"
        if kind is ResizeMode:
            remedy += " (3, the host's latent upscale, is Just Resize here, as in sd-webui-controlnet)"
        raise UnitError("this is none of the choices", found=value, remedy=remedy)
    return found


def _find(kind: type[_E], value: object) -> _E | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, (int, float)):
        numbers = _NUMBERS.get(kind, tuple(kind))
        return cast(_E, numbers[int(value)]) if value in range(len(numbers)) else None
    if not isinstance(value, str):
        return None
    word = value.strip().lower()
    prefix, _, last = word.rpartition(".")
    word = last if prefix.isidentifier() else word
    for member in kind:
        if word in (str(member.value).lower(), member.name.lower()):
            return member
    return cast("_E | None", _WORDS.get(kind, {}).get(word))
