"""Which parts of prompts that change while a picture is drawn (`[a:b:0.5]`) a denoiser call hears."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def prompt_parts(params: Any) -> tuple[int, ...]:
    """The place of the part heard now in each schedule; () where there is none with several parts.

    Known from the host's lists (`sampler_extra_args`), without a look at any tensor.
    """
    denoiser = params.denoiser
    given = getattr(getattr(denoiser, "sampler", None), "sampler_extra_args", None)
    if not isinstance(given, dict):
        return ()
    prompts = getattr(given.get("cond"), "batch", None) or ()
    asked = (getattr(prompt, "schedules", ()) for image in prompts for prompt in image)
    schedules = [*asked, *(given.get("uncond") or ())]
    step = getattr(denoiser, "step", 0)
    return tuple(_heard(part, step) for part in schedules if isinstance(part, (list, tuple)) and len(part) > 1)


def _heard(schedule: Iterable[Any], step: int) -> int:
    """As the host's `prompt_parser` chooses: the first that ends no earlier, the first of all where none does."""
    ends = (getattr(part, "end_at_step", 0) for part in schedule)
    return next((place for place, end in enumerate(ends) if step <= end), 0)
