"""What the user asks of one control unit, parsed once from any caller and never changed after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from . import legacy
from .embedding_input import Embeddings, read_embeddings
from .errors import ControlNetError, UnitError, shown
from .frames import FIELDS, Asked, Frames, read_frames
from .image_prompt import Combine, EmbedsScaling, ImagePrompt, Uncond, WeightType
from .images import MAX_PIXELS, Pixels, is_empty, read_rgb
from .modes import ControlMode, HiResOption, InputMode, PulidMode, ResizeMode, UnionType
from .schedule import WeightCurve
from .unit_pictures import Entry, Source, read_as, read_images, read_pictures
from .unknown import unknown_key
from .values import (
    read_bool,
    read_curve,
    read_folder,
    read_number,
    read_parameter,
    read_places,
    read_resolution,
    read_strengths,
    read_text,
    read_weights,
)

__all__ = ["IMAGE_PROMPT", "ControlNetUnit", "Source", "configured_units", "is_unit", "parse_unit"]

MAX_UNKNOWN = 50
"""Keys without a meaning in a unit that are passed over; each is compared with all known ones."""


IMAGE_PROMPT = (
    "ip_weight_type",
    "ip_style_boost",
    "ip_composition_boost",
    "ip_layer_weights",
    "ip_combine",
    "ip_scaling",
    "ip_uncond",
    "ip_noise",
    "ip_shortcut",
    "ip_lora",
    "pulid_mode",
)
"""Fields that count where the unit's picture acts as a prompt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ControlNetUnit:
    """One unit as asked for; -1 in `resolution` and thresholds means "the preprocessor's default".

    Other numbers that the preprocessor does not take are kept as they came: it uses its default and says so.

    `image`: (H, W, 3) uint8 RGB. `mask`: (H, W) uint8, 255 where masked. `region_mask`: (H, W) uint8, where and how
    strongly the unit acts. `layer_weights`: one number for each residual, encoder order then middle. `weight_schedule`:
    the weight at each step instead of `weight`, by which `layer_weights` are multiplied; `hr_weight_schedule`: the same
    for the hires pass, where there is no other the one of the base pass. `uncond_weight`: by which the rows of the
    negative prompt are multiplied. `batch_weights`: by which each picture of a batch is. `reuse_control`: residuals of
    an earlier step serve while they are expected to have changed by less than this share; 0 never, -1 as the option
    says. `images`: those of a batch
    (one generation for each) or to be merged; `batch_dir`: a folder with the batch's instead. `frames`: those of a
    film that the batch of one generation is. `loopback`: a batch goes
    on from its own results. `notes`: what reading it let pass, to be told to the user.
    """

    index: int = 0
    enabled: bool = False
    preprocessor: str = "none"
    model: str = "None"
    weight: float = 1.0
    image: Pixels | None = None
    mask: Pixels | None = None
    resize_mode: ResizeMode = ResizeMode.crop_and_resize
    resolution: int = -1
    threshold_a: float = -1.0
    threshold_b: float = -1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    pixel_perfect: bool = False
    control_mode: ControlMode = ControlMode.balanced
    hr_option: HiResOption = HiResOption.both
    low_vram: bool = False
    crop_to_mask: bool = True
    save_map: bool = True
    layer_weights: tuple[float, ...] | None = None
    weight_schedule: WeightCurve | None = None
    hr_weight_schedule: WeightCurve | None = None
    uncond_weight: float = 1.0
    batch_weights: tuple[float, ...] | None = None
    region_mask: Pixels | None = None
    union_type: UnionType = UnionType.unknown
    input_mode: InputMode = InputMode.simple
    batch_dir: str = ""
    frames: Frames | None = None
    output_dir: str = ""
    loopback: bool = False
    images: tuple[Source, ...] = ()
    reuse_control: float = -1.0
    embeddings: tuple[Embeddings, ...] = ()
    uncond_image: Pixels | None = None
    ip_weight_type: WeightType = WeightType.normal
    ip_style_boost: float = 0.0
    ip_composition_boost: float = 0.0
    ip_layer_weights: tuple[tuple[int, float], ...] = ()
    ip_combine: Combine = Combine.concat
    ip_scaling: EmbedsScaling = EmbedsScaling.v_only
    ip_uncond: Uncond = Uncond.zero
    ip_noise: float = 0.35
    ip_shortcut: float = 1.0
    ip_lora: float = 1.0
    pulid_mode: PulidMode = PulidMode.fidelity
    notes: tuple[str, ...] = ()

    @property
    def image_prompt(self) -> ImagePrompt:
        """What it asks for where its picture acts as a prompt: the fields `ip_…`, which are explained there."""
        return ImagePrompt(
            weight_type=self.ip_weight_type,
            style_boost=self.ip_style_boost,
            composition_boost=self.ip_composition_boost,
            combine=self.ip_combine,
            scaling=self.ip_scaling,
            uncond=self.ip_uncond,
            noise=self.ip_noise,
            shortcut=self.ip_shortcut,
            lora=self.ip_lora,
            factors=self.ip_layer_weights,
            listed=self.layer_weights is not None,
        )


def configured_units(setting: Callable[[str, Any], Any]) -> int:
    """Units a tab or a request may have: the option, within 1 and 10; hosts hand whole numbers back as floats."""
    return max(1, min(int(setting("control_net_unit_count", 3)), 10))


def is_unit(value: object) -> bool:
    """True for what can be meant as a unit among a script's arguments: dicts and unit objects of any class."""
    if isinstance(value, Mapping):
        return True
    return all(hasattr(value, name) for name in ("enabled", "model", "weight")) and (
        hasattr(value, "module") or hasattr(value, "preprocessor")
    )


def parse_unit(value: object, index: int, *, max_pixels: int = MAX_PIXELS) -> ControlNetUnit:
    """Read a dict or a unit object of any ControlNet extension, in any of their spellings.

    Raises UnitError with unit, field, what was found and a remedy. Disabled units never raise: what cannot be read
    keeps its default, and pictures are not decoded. A unit that does not say `enabled` is enabled if it has a model, a
    preprocessor or a picture (peers differ: False in one, True in the others; a forgotten key must not drop control).
    """
    if isinstance(value, ControlNetUnit):
        return replace(value, index=index)
    if not is_unit(value):
        raise UnitError(
            "this is not a unit", unit=index, found=type(value).__name__, remedy="send an object with model, image, …"
        )
    try:
        return _parse(value, index, max_pixels)
    except ControlNetError as error:
        raise error.for_unit(index) from error.__cause__


def _parse(value: object, index: int, max_pixels: int) -> ControlNetUnit:
    given = _given(value)
    enabled = _read_enabled(given)
    entries = _by_field(given, strict=enabled)
    fields: dict[str, Any] = {"index": index, "enabled": enabled}
    for name, read in _READERS.items():
        if name not in entries:
            continue
        try:
            fields[name] = read(entries[name].value)
        except ControlNetError as error:
            if enabled:
                raise error.for_unit(index, entries[name].key) from error.__cause__
    if enabled:
        _check_together(fields)
        fields.update(read_pictures(entries, index, max_pixels))
        fields.update(_film_or_batch(value, given))
        fields["images"] = read_images(entries, fields, max_pixels)
        fields["embeddings"] = read_as("embeddings", read_embeddings, entries, index) or ()
        fields["uncond_image"] = read_as("uncond_image", partial(read_rgb, max_pixels=max_pixels), entries, index)
    if enabled or not any(name in given for name in legacy.SPELLINGS["enabled"]):
        _refuse_foreign(given, () if fields.get("frames") is None else FIELDS)
        fields["notes"] = _unknown_keys(value, given)
    return ControlNetUnit(**fields)


# -- names ---------------------------------------------------------------------------------------------------------


def _given(value: object) -> dict[str, Entry]:
    """Normalised name -> entry, without those that say nothing (None)."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in cast(Mapping[object, object], value).items()]
    else:
        names = (*legacy.known_keys(), *legacy.EMPTY_ONLY, *FIELDS)
        items = [(name, getattr(value, name)) for name in names if hasattr(value, name)]
    return {legacy.key_name(key): Entry(key, item) for key, item in items if item is not None}


def _read_enabled(given: Mapping[str, Entry]) -> bool:
    for name in legacy.SPELLINGS["enabled"]:
        if name in given:
            try:
                return read_bool(given[name].value)
            except UnitError as error:
                raise UnitError(error.problem, field=name, found=error.found, remedy=error.remedy) from None
    named = ("model", *legacy.SPELLINGS["preprocessor"])
    values = [given[name].value for name in named if name in given]
    if any(not isinstance(value, str) or value.strip().lower() not in ("", "none") for value in values):
        return True
    return any(not is_empty(given[name].value) for name in legacy.SPELLINGS["image"] if name in given)


def _by_field(given: Mapping[str, Entry], *, strict: bool) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for field, names in legacy.SPELLINGS.items():
        said = [given[name] for name in names if name in given and not _says_nothing(given[name].value)]
        if len(said) > 1 and strict and not all(_equal(said[0].value, other.value) for other in said[1:]):
            keys = " and ".join(entry.key for entry in said)
            raise UnitError("two names of one field have different values", field=keys, remedy="send one of them")
        if said:
            entries[field] = said[0]
    for name in legacy.GUESS_MODE:
        if name in given and "control_mode" not in entries:
            entries["control_mode"] = Entry(given[name].key, _GuessMode(given[name].value))
    return entries


@dataclass(frozen=True)
class _GuessMode:
    value: object


def _says_nothing(value: object) -> bool:
    return (isinstance(value, str) and not value.strip()) or (isinstance(value, (list, tuple)) and not value)


def _equal(first: object, second: object) -> bool:
    if first is second:
        return True
    plain = (str, int, float)
    return isinstance(first, plain) and isinstance(second, plain) and first == second


def _film_or_batch(value: object, given: Mapping[str, Entry]) -> dict[str, Any]:
    frames = read_frames(value, given)
    return {} if frames is None else {"frames": frames, "input_mode": InputMode.simple, "batch_dir": ""}


def _refuse_foreign(given: Mapping[str, Entry], served: Collection[str]) -> None:
    for name, remedy in legacy.EMPTY_ONLY.items():
        if name in given and name not in served and not _is_void(given[name].value):
            raise UnitError("this option of another extension is not available", field=name, remedy=remedy)


def _unknown_keys(value: object, given: Mapping[str, Entry]) -> tuple[str, ...]:
    """What is to be said of the keys without a meaning here. Raises UnitError for one that is but misspelt."""
    if not isinstance(value, Mapping):
        return ()  # other classes have attributes of their own
    known = (*legacy.known_keys(), *legacy.IGNORED, *legacy.EMPTY_ONLY)
    odd = [
        entry
        for name, entry in given.items()
        if name not in known and not name.startswith("_") and not isinstance(entry.value, Asked)
    ]
    if len(odd) > MAX_UNKNOWN:
        raise UnitError(
            "there are too many fields that a unit does not have",
            found=f"{len(odd)} fields",
            remedy=f"leave them out; at most {MAX_UNKNOWN} are passed over",
        )
    notes = tuple(unknown_key(entry.key, known) for entry in odd)
    if odd and len(odd) == len(given):
        raise UnitError(
            "this is neither a unit nor the options of a job",
            found=f"nothing but {', '.join(shown(entry.key, 100) for entry in odd[:3])}",
            remedy="send an object with module, model, image and so on",
        )
    return notes


def _is_void(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return cast("np.ndarray[Any, Any]", value).size == 0
    return is_empty(value) or not value


# -- values ----------------------------------------------------------------------------------------------------------


def _read_control_mode(value: object) -> ControlMode:
    if isinstance(value, _GuessMode):
        return ControlMode.control if read_bool(value.value) else ControlMode.balanced
    return legacy.read_choice(ControlMode, value)


_READERS: Mapping[str, Callable[[object], object]] = {
    "preprocessor": partial(read_text, nothing="none"),
    "model": partial(read_text, nothing="None"),
    "weight": partial(read_number, low=0.0, high=2.0),
    "resize_mode": partial(legacy.read_choice, ResizeMode),
    "resolution": read_resolution,
    "threshold_a": read_parameter,
    "threshold_b": read_parameter,
    "guidance_start": partial(read_number, low=0.0, high=1.0),
    "guidance_end": partial(read_number, low=0.0, high=1.0),
    "pixel_perfect": read_bool,
    "control_mode": _read_control_mode,
    "hr_option": partial(legacy.read_choice, HiResOption),
    "low_vram": read_bool,
    "crop_to_mask": read_bool,
    "save_map": read_bool,
    "layer_weights": read_weights,
    "weight_schedule": read_curve,
    "hr_weight_schedule": read_curve,
    "uncond_weight": partial(read_number, low=0.0, high=2.0),
    "batch_weights": read_strengths,
    "reuse_control": partial(read_number, low=-1.0, high=1.0),
    "union_type": partial(legacy.read_choice, UnionType),
    "input_mode": partial(legacy.read_choice, InputMode),
    "batch_dir": read_folder,
    "output_dir": read_folder,
    "loopback": read_bool,
    "ip_weight_type": partial(legacy.read_choice, WeightType),
    "ip_style_boost": partial(read_number, low=-1.0, high=5.0),
    "ip_composition_boost": partial(read_number, low=-1.0, high=5.0),
    "ip_layer_weights": read_places,
    "ip_combine": partial(legacy.read_choice, Combine),
    "ip_scaling": partial(legacy.read_choice, EmbedsScaling),
    "ip_uncond": partial(legacy.read_choice, Uncond),
    "ip_noise": partial(read_number, low=0.0, high=1.0),
    "ip_shortcut": partial(read_number, low=-1.0, high=5.0),
    "ip_lora": partial(read_number, low=0.0, high=2.0),
    "pulid_mode": partial(legacy.read_choice, PulidMode),
}


def _check_together(fields: Mapping[str, Any]) -> None:
    start, end = fields.get("guidance_start", 0.0), fields.get("guidance_end", 1.0)
    if start > end:
        raise UnitError(
            "control would end before it starts",
            field="guidance_start",
            found=f"start {start:g}, end {end:g}",
            remedy="let guidance_start be at most guidance_end",
        )
