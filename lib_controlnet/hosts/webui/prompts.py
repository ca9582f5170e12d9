"""The prompt modes of the ControlNet paper (arXiv 2302.05543, 4.1), in an A1111-type host."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ...core.errors import HostError, UnitError
from ...core.panel_options import (
    BATCH_OPTION_KEY,
    DEFAULT_PROMPT,
    PROMPT_MODE_KEY,
    STYLE_ALIGN_KEY,
    BatchOption,
    PanelOptions,
    PromptMode,
)
from ...core.units import ControlNetUnit

FIRST_RESULT = "controlnet_first_result"
"""The attribute of a processing object that only makes a picture to caption."""


def apply_prompt_mode(p: Any, options: PanelOptions, units: Sequence[ControlNetUnit]) -> None:
    """Gives a job without a prompt the default one or a caption; raises where there is nothing that captions."""
    p.extra_generation_params.pop(PROMPT_MODE_KEY, None)
    if options.batch_option is not BatchOption.all_units:
        p.extra_generation_params[BATCH_OPTION_KEY] = options.batch_option.value
    if options.style_align:
        p.extra_generation_params[STYLE_ALIGN_KEY] = True
    if options.prompt_mode is PromptMode.typed or getattr(p, FIRST_RESULT, False) or not _is_empty(p.prompt):
        return
    if not any(unit.enabled for unit in units):
        return
    p.extra_generation_params[PROMPT_MODE_KEY] = options.prompt_mode.value
    p.prompt = _prompt(p, options, units)


def has_interrogator() -> bool:
    """Whether the host has what writes captions; whether it works is known once it is asked."""
    from modules import shared

    return getattr(shared, "interrogator", None) is not None


def caption(picture: Image.Image) -> str:
    """The host's interrogator on a picture. Raises HostError where the host has none, or it fails."""
    from modules import shared

    interrogator = getattr(shared, "interrogator", None)
    if interrogator is None:
        raise HostError(
            "this WebUI has no interrogator, which would write the caption",
            field="prompt_mode",
            remedy="write the caption into its box, or use another prompt mode",
        )
    text = str(interrogator.interrogate(picture.convert("RGB")))
    if not text or "<error>" in text:
        raise HostError(
            "the interrogator failed", field="prompt_mode", found=text or "no text", remedy="see the console"
        )
    return text


def _prompt(p: Any, options: PanelOptions, units: Sequence[ControlNetUnit]) -> str:
    if options.prompt_mode is PromptMode.default:
        return DEFAULT_PROMPT
    if options.caption:
        return options.caption
    if options.prompt_mode is PromptMode.source:
        return caption(_source(p, units))
    return caption(_first_result(p))


def _source(p: Any, units: Sequence[ControlNetUnit]) -> Image.Image:
    own = next((unit.image for unit in units if unit.enabled and unit.image is not None), None)
    if own is not None:
        return Image.fromarray(own)
    sources = [image for image in getattr(p, "init_images", None) or () if image is not None]
    if not sources:
        raise UnitError(
            "there is no picture to caption", field="prompt_mode", remedy="give a unit a picture, or type a prompt"
        )
    return sources[0]


def _first_result(p: Any) -> Image.Image:
    """One picture of the same job with the default prompt; it is not saved."""
    from modules import processing

    first = copy.copy(p)
    setattr(first, FIRST_RESULT, True)
    first.prompt, first.n_iter, first.batch_size = DEFAULT_PROMPT, 1, 1
    first.do_not_save_samples = first.do_not_save_grid = True
    first.extra_generation_params = dict(p.extra_generation_params)
    processed = processing.process_images(first)
    return processed.images[0]


def _is_empty(prompt: Any) -> bool:
    return isinstance(prompt, str) and not prompt.strip()
