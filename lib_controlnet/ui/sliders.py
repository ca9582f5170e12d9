"""A preprocessor's settings as the panel's three sliders: resolution, threshold A, threshold B."""

from __future__ import annotations

from typing import Any

import gradio as gr

HIDDEN = -1.0
"""The value of a slider that the preprocessor does not have: "use the default"."""


def slider_options(spec: Any | None, value: float | None = None, visible: bool = True) -> dict[str, Any]:
    """How a slider shows `spec` (label, minimum, maximum, step, default, unit); hidden where there is none."""
    if spec is None:
        return {"label": "unused", "minimum": HIDDEN, "maximum": HIDDEN, "step": 1, "value": HIDDEN, "visible": False}
    unit = getattr(spec, "unit", "")
    inside = value is not None and spec.minimum <= value <= spec.maximum
    return {
        "label": f"{spec.label} ({unit})" if unit else spec.label,
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "step": spec.step,
        "value": value if inside else spec.default,
        "visible": visible,
    }


def slider_updates(spec: Any, pixel_perfect: bool, values: tuple[float | None, ...] = (None,) * 3) -> list[Any]:
    """Updates of the three sliders for a preprocessor; `values` are kept where they are within the range."""
    sliders = (spec.resolution, *spec.sliders[:2], None, None)[:3]
    shown = (not pixel_perfect, True, True)
    return [
        gr.update(**slider_options(slider, value, visible))
        for slider, value, visible in zip(sliders, values, shown, strict=True)
    ]
