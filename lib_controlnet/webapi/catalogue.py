"""Preprocessors and control types as the API lists them; also what `external_code` answers."""

from __future__ import annotations

from typing import Any

from ..core.control_types import (
    NO_PREPROCESSOR,
    default_model,
    default_preprocessor,
    models_of,
    preprocessors_of,
    type_names,
)
from ..engine.services import Services


def specs(services: Services) -> list[Any]:
    """All specifications in the page's order."""
    return [entry.spec for entry in services.annotators.entries]


def module_names(services: Services, alias_names: bool) -> list[str]:
    """Ids, or with `alias_names` the labels of the page."""
    return [spec.label if alias_names else spec.id for spec in specs(services)]


def module_details(services: Services, alias_names: bool) -> dict[str, Any]:
    """Name -> `{"model_free", "sliders": [{"name", "value", "min", "max", "step"}]}`."""
    return {
        spec.label if alias_names else spec.id: {
            "model_free": spec.model_free,
            "sliders": [_slider(slider) for slider in (spec.resolution, *spec.sliders) if slider is not None],
        }
        for spec in specs(services)
    }


def control_types(services: Services) -> dict[str, Any]:
    """Type -> its preprocessors' labels, its models with "None" first, and the defaults of both."""
    known, names = specs(services), services.library.names()
    details: dict[str, Any] = {}
    for control_type in type_names(known):
        default = default_preprocessor(control_type, known)
        details[control_type] = {
            "module_list": [spec.label for spec in preprocessors_of(control_type, known)],
            "model_list": models_of(control_type, names),
            "default_option": NO_PREPROCESSOR if default is None else default.label,
            "default_model": default_model(control_type, names),
        }
    return details


def _slider(slider: Any) -> dict[str, Any]:
    return {
        "name": slider.label,
        "value": slider.default,
        "min": slider.minimum,
        "max": slider.maximum,
        "step": slider.step,
    }
