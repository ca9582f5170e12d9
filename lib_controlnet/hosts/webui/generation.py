"""One job of a WebUI, as a session needs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ...core.checkpoint import Checkpoint
from ...core.preprocessors import PreprocessorSpec
from ...core.units import ControlNetUnit
from ...engine.generation import Picture, Region
from ...families.base import Runtime
from ..base import Host
from .films import draws_film
from .pictures import unit_pictures
from .regions import region_of_mask, unit_region
from .vae import encode


class WebUIGeneration:
    """One job (`StableDiffusionProcessing`), as a session needs it."""

    unit_per_image = False

    def __init__(self, host: Host, p: Any) -> None:
        unet = host.network()
        self._host, self._p = host, p
        self.width = int(p.width) // 8 * 8
        self.height = int(p.height) // 8 * 8
        self.batch_size = int(getattr(p, "batch_size", 1) or 1)
        self.film = draws_film(p)
        self.paints_mask = getattr(p, "image_mask", None) is not None
        self.seed = _seed(p)
        self.base = host.base_model(unet)
        self.base_id = host.base_id()
        self.runtime: Runtime = host.runtime(unet)

    @property
    def hires(self) -> bool:
        """Asked anew: others may switch hires fix on or off before the first pass begins."""
        return bool(getattr(self._p, "enable_hr", False))

    @property
    def final_size(self) -> tuple[int, int]:
        """As the hires pass will have it, where there is one."""
        return _final_size(self._p) if self.hires else (self.width, self.height)

    def pictures(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Sequence[Picture]:
        """The unit's own picture or the img2img sources, cropped as the host crops."""
        return unit_pictures(self._p, unit, spec)

    def region(self, unit: ControlNetUnit, spec: PreprocessorSpec) -> Region | None:
        """The unit's region mask, or what its host takes for one, cropped as the host crops the picture."""
        if unit.region_mask is not None:
            return Region(unit_region(self._p, unit, unit.region_mask))
        return region_of_mask(self._p, unit, spec) if self._host.masks_are_regions else None

    def checkpoint(self) -> Checkpoint:
        """Looked up anew at every pass: the host may change the noise schedule when a job begins."""
        from modules import devices, shared

        alphas, velocity = self._host.noise_schedule()
        alphas = alphas.to(devices.device)  # elsewhere every step would wait for the copy
        seed = _first_drawn(self._p.seed, getattr(self._p, "all_seeds", None))
        no_prompt = not self._p.prompt and not self._p.negative_prompt
        return Checkpoint(alphas, velocity, partial(encode, shared.sd_model, seed), seed, no_prompt)


def _final_size(p: Any) -> tuple[int, int]:
    """(width, height) after hires fix, which the host computes only later (`Txt2Img.calculate_target_resolution`)."""
    width, height = int(p.hr_resize_x), int(p.hr_resize_y)
    if not width and not height:
        width, height = int(p.width * p.hr_scale), int(p.height * p.hr_scale)
    elif not height:
        height = width * p.height // p.width
    elif not width:
        width = height * p.width // p.height
    return width // 8 * 8, height // 8 * 8


def _seed(p: Any) -> int:
    """The first picture's seed, with its subseed where that has a say; prompt matrix and others put lists in `p`.

    The host draws a subseed at random for every job that asks for none: where its strength is 0 it changes nothing in
    the picture, and must not change the map either.
    """
    seed = _first_drawn(p.seed, getattr(p, "all_seeds", None))
    if getattr(p, "subseed_strength", 0):
        seed += _first_drawn(p.subseed, getattr(p, "all_subseeds", None))
    return seed & 0xFFFFFFFF


def _first_drawn(value: Any, drawn: Any) -> int:
    """The first of the seeds that the host drew for its pictures, or the one that was asked for."""
    first = drawn or value
    return max(int(first[0] if isinstance(first, (list, tuple)) else first), 0)
