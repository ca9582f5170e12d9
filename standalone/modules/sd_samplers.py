"""The list of samplers, and finding one by name."""

from __future__ import annotations

import functools
import logging
from typing import Any

from modules import (
    errors,
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_lcm,
    sd_samplers_timesteps,
    sd_schedulers,
    shared,
)

all_samplers = [
    *sd_samplers_kdiffusion.samplers_data_k_diffusion,
    *sd_samplers_timesteps.samplers_data_timesteps,
    *sd_samplers_lcm.samplers_data_lcm,
]
all_samplers_map = {x.name: x for x in all_samplers}
samplers = samplers_for_img2img = all_samplers
samplers_map: dict[str, str] = {}
sample_to_image = sd_samplers_common.sample_to_image
samples_to_image_grid = sd_samplers_common.samples_to_image_grid


def find_sampler_config(name: str | None) -> Any:
    return all_samplers[0] if name is None else all_samplers_map.get(name)


def set_samplers() -> None:
    """Fills the names by which samplers are known, in small letters."""
    samplers_map.clear()
    samplers_map.update({name.lower(): x.name for x in all_samplers for name in (x.name, *x.aliases)})


def create_sampler(name: str | None, model: Any) -> Any:
    """A new sampler object for one pass."""
    config = find_sampler_config(name)
    if config is None:
        raise errors.WrongRequest(f"bad sampler name: {name}")
    made = config.constructor(model)
    made.config = config
    return made


def visible_samplers() -> list[Any]:
    return [x for x in samplers if x.name not in shared.opts.hide_samplers]


def visible_sampler_names() -> list[str]:
    return [x.name for x in visible_samplers()]


@functools.cache
def get_sampler_and_scheduler(
    sampler_name: str | None, scheduler_name: str | None, *, convert_automatic: bool = True
) -> tuple[str, str]:
    """Names as the host knows them; "DPM++ 2M Karras" is split into sampler and schedule."""
    default = samplers[0]
    name, named = _without_schedule(sampler_name or default.name)
    found = named or sd_schedulers.schedulers_map.get(scheduler_name or "", sd_schedulers.schedulers[0])
    sampler = all_samplers_map.get(name, default)
    if convert_automatic and sampler.options.get("scheduler", None) == found.name:
        found = sd_schedulers.schedulers[0]
    return sampler.name, found.label


def knows(sampler_name: str) -> bool:
    """Whether a job is made with that sampler, and not with the first of all; also with a schedule in its name."""
    return _without_schedule(sampler_name)[0] in all_samplers_map


def _without_schedule(name: str) -> tuple[str, Any]:
    """A sampler's name without the schedule that it may end with, and that schedule or None."""
    found = None
    for scheduler in sd_schedulers.schedulers:
        for option in (scheduler.label, scheduler.name, *(scheduler.aliases or [])):
            if name.endswith(" " + option):
                found, name = scheduler, name.removesuffix(" " + option)
                break
    return name, found


def _named_in(infotext: dict[str, Any]) -> tuple[str, str]:
    return get_sampler_and_scheduler(infotext.get("Sampler"), infotext.get("Schedule type"))


def get_sampler_from_infotext(d: dict[str, Any]) -> str:
    return _named_in(d)[0]


def get_scheduler_from_infotext(d: dict[str, Any]) -> str:
    return _named_in(d)[1]


def fix_p_invalid_sampler_and_scheduler(p: Any) -> None:
    before = p.sampler_name, p.scheduler
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(p.sampler_name, p.scheduler, convert_automatic=False)
    if (p.sampler_name, p.scheduler) != before and None not in before:
        logging.getLogger(__name__).warning(
            "Sampler and scheduler %s corrected to %s", before, (p.sampler_name, p.scheduler)
        )


set_samplers()
