"""Preprocessors and control types as clients are told of them, by the API's routes and by `external_code`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .control_types import (
    NO_MODEL,
    NO_PREPROCESSOR,
    default_model,
    default_preprocessor,
    models_of,
    preprocessors_of,
    type_names,
)
from .preprocessors import PreprocessorSpec, Slider


def module_names(specs: Iterable[PreprocessorSpec], alias_names: bool) -> list[str]:
    """Ids, or with `alias_names` the labels of the page."""
    return [spec.label if alias_names else spec.id for spec in specs]


def module_details(specs: Iterable[PreprocessorSpec], alias_names: bool) -> dict[str, Any]:
    """Name -> `{"model_free", "sliders": [{"name", "value", "min", "max", "step"}]}`."""
    return {
        spec.label if alias_names else spec.id: {
            "model_free": spec.model_free,
            "sliders": [_slider(slider) for slider in (spec.resolution, *spec.sliders) if slider is not None],
        }
        for spec in specs
    }


def control_types(
    specs: Sequence[PreprocessorSpec],
    models: Sequence[str],
    absent: Sequence[PreprocessorSpec] = (),
    fits: Callable[[str], bool] = lambda _name: True,
) -> dict[str, Any]:
    """Type -> its preprocessors' labels, its models with "None" first, and the defaults of both.

    `absent` and `fits` as in `default_preprocessor` and `default_model`.
    """
    details: dict[str, Any] = {}
    for control_type in type_names(specs):
        default = default_preprocessor(control_type, specs, absent, default_model(control_type, models, fits))
        details[control_type] = {
            "module_list": [spec.label for spec in preprocessors_of(control_type, specs)],
            "model_list": models_of(control_type, models),
            "default_option": NO_PREPROCESSOR if default is None else default.label,
            "default_model": _default_model(control_type, models, fits),
        }
    return details


def _default_model(control_type: str, models: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The page's, and for clients the first by name where none fits: they may load another checkpoint with the job."""
    found = default_model(control_type, models, fits)
    return found if found != NO_MODEL else default_model(control_type, models)


def _slider(slider: Slider) -> dict[str, Any]:
    return {
        "name": slider.label,
        "value": slider.default,
        "min": slider.minimum,
        "max": slider.maximum,
        "step": slider.step,
    }
