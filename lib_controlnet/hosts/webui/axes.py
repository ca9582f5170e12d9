"""Axes of the host's X/Y/Z plot for the fields of units, and the attributes by which other scripts decide them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ...core.image_prompt import Combine, EmbedsScaling, Uncond, WeightType
from ...core.modes import ControlMode, HiResOption, PulidMode, ResizeMode, UnionType
from ...core.overrides import REMOTE, Overrides
from ...engine.services import Services
from .ranking import LABEL, Ranking

AXES = "controlnet_axes"
"""The attribute of a processing object with what axes decided: (unit or None for all, field) -> value."""


def overrides_of(p: Any, setting: Callable[[str, Any], Any]) -> Overrides:
    """What a grid or, where the user allows it, another script decided for a job's units."""
    allowed = bool(setting("control_net_allow_script_control", False))
    names = REMOTE if allowed else ()
    remote = {name: value for name in names if (value := getattr(p, name, None)) is not None}
    return Overrides(getattr(p, AXES, {}), remote)


def register_axes(services: Services, units: int) -> None:
    """Adds the axes to the host's script, if it is there and has not got them yet."""
    grid = _grid()
    if grid is None:
        return
    known = {option.label for option in grid.axis_options}
    if LABEL not in known:
        ranking = Ranking()
        ranking.wrap(grid)
        grid.axis_options.append(ranking.axis(grid, units))
    grid.axis_options.extend(option for option in _options(grid, services, units) if option.label not in known)


def _grid() -> Any | None:
    from modules import scripts

    data = getattr(scripts, "scripts_data", ())
    found = (item.module for item in data if item.script_class.__module__ in ("xyz_grid.py", "scripts.xyz_grid"))
    return next((module for module in found if hasattr(module, "axis_options")), None)


def _options(grid: Any, services: Services, units: int) -> Iterator[Any]:
    """For all units together under the peer's names, then for each."""
    for unit in (None, *range(units)):
        name = "[ControlNet]" if unit is None else f"[ControlNet {unit}]"
        for label, field, kind, choices, cost in _fields(services):
            given = {} if choices is None else {"choices": choices}
            yield grid.AxisOption(f"{name} {label}", kind, _apply(unit, field), cost=cost, **given)


def _apply(unit: int | None, field: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, _values: Any) -> None:
        setattr(p, AXES, {**getattr(p, AXES, {}), (unit, field): value})

    return apply


Field = tuple[str, str, type, Callable[[], list[str]] | None, float]


def _fields(services: Services) -> Iterator[Field]:
    def words(kind: Any) -> Callable[[], list[str]]:
        return lambda: [member.value for member in kind]

    def truth() -> list[str]:
        return ["True", "False"]

    yield "Enabled", "enabled", str, truth, 0.0
    yield "Model", "model", str, lambda: ["None", *services.library.names()], 0.9
    yield "Weight", "weight", float, None, 0.0
    yield "Guidance Start", "guidance_start", float, None, 0.0
    yield "Guidance End", "guidance_end", float, None, 0.0
    yield "Control Mode", "control_mode", str, words(ControlMode), 0.0
    yield "Resize Mode", "resize_mode", str, words(ResizeMode), 0.0
    yield "Preprocessor", "preprocessor", str, lambda: [entry.spec.id for entry in services.annotators.entries], 0.0
    yield "Pre Resolution", "resolution", int, None, 0.0
    yield "Pre Threshold A", "threshold_a", float, None, 0.0
    yield "Pre Threshold B", "threshold_b", float, None, 0.0
    yield "Pixel Perfect", "pixel_perfect", str, truth, 0.0
    yield "Hires Option", "hr_option", str, words(HiResOption), 0.0
    yield "Layer Weights", "layer_weights", str, None, 0.0
    yield "Weight Schedule", "weight_schedule", str, None, 0.0
    yield "Hires Weight Schedule", "hr_weight_schedule", str, None, 0.0
    yield "Uncond Weight", "uncond_weight", float, None, 0.0
    yield "Batch Weights", "batch_weights", str, None, 0.0
    yield "Reuse Control", "reuse_control", float, None, 0.0
    yield "Union Control Type", "union_type", str, words(UnionType), 0.0
    yield "IP-Adapter Weight Type", "ip_weight_type", str, words(WeightType), 0.0
    yield "IP-Adapter Style Boost", "ip_style_boost", float, None, 0.0
    yield "IP-Adapter Composition Boost", "ip_composition_boost", float, None, 0.0
    yield "IP-Adapter Layer Weights", "ip_layer_weights", str, None, 0.0
    yield "IP-Adapter Combine", "ip_combine", str, words(Combine), 0.0
    yield "IP-Adapter Scaling", "ip_scaling", str, words(EmbedsScaling), 0.0
    yield "IP-Adapter Uncond", "ip_uncond", str, words(Uncond), 0.0
    yield "IP-Adapter Noise", "ip_noise", float, None, 0.0
    yield "IP-Adapter LoRA", "ip_lora", float, None, 0.0
    yield "PuLID Mode", "pulid_mode", str, words(PulidMode), 0.0
    yield "Low VRAM", "low_vram", str, truth, 0.0
