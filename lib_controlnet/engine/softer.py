"""Settings of a unit with which its map says less, for a condition that is taken for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.control_types import LINE_TYPES, NO_MODEL, preprocessors_of
from ..core.preprocessors import PreprocessorSpec
from ..core.units import ControlNetUnit
from . import defaults
from .services import PageServices

_TWINS: Mapping[str, str] = {"hed": "hed_safe", "pidinet": "pidinet_safe", "lineart": "lineart_coarse"}
"""Preprocessors with one of the same kind that keeps fewer details."""
_SOFTER = ("SoftEdge", "Scribble")
"""Types of lines that say less than the others, the last least."""


@dataclass(frozen=True)
class Softer:
    """Fields of the unit and their values, in words; its model stays unless it is among them."""

    words: str
    fields: Mapping[str, object]


def softer(services: PageServices, unit: ControlNetUnit) -> list[Softer]:
    """The same preprocessor with fewer lines or its softer twin; then a softer type of lines, where a model of it
    fits. None needs weights that are not there, and none is for a map that was given as it is.
    """
    spec: Any = services.preprocess.entry(unit.preprocessor).spec
    if spec.reads_map:
        return []
    own, other = _same_kind(services, unit, spec), _softer_kind(services, spec)
    return [one for one in (own, other) if one is not None]


def _same_kind(services: PageServices, unit: ControlNetUnit, spec: PreprocessorSpec) -> Softer | None:
    if spec.id == "canny":
        values: dict[str, object] = {}
        for name, given, slider in zip(
            ("threshold_a", "threshold_b"), (unit.threshold_a, unit.threshold_b), spec.sliders, strict=True
        ):
            now = slider.default if given < 0 else given
            values[name] = round((now + slider.maximum) / 2)
        return Softer("higher thresholds", values)
    twin = next((entry.spec for entry in services.annotators.entries if entry.spec.id == _TWINS.get(spec.id)), None)
    if twin is None or defaults.missing(services, twin):
        return None
    return Softer("softer preprocessor", {"preprocessor": twin.label})


def _softer_kind(services: PageServices, spec: PreprocessorSpec) -> Softer | None:
    own = next((name for name in spec.control_types if name in LINE_TYPES), None)
    if own is None:
        return None
    specs = [entry.spec for entry in services.annotators.entries]
    for type_ in _SOFTER[_SOFTER.index(own) + 1 if own in _SOFTER else 0 :]:
        model = defaults.model(services, type_)
        able = [one for one in preprocessors_of(type_, specs) if not one.reads_map and one.returns_image]
        ready = [one for one in able if not defaults.missing(services, one)]
        if model != NO_MODEL and ready:
            chosen = min(ready, key=lambda one: bool(one.weights))
            return Softer(f"softer kind ({type_})", {"preprocessor": chosen.label, "model": model})
    return None
