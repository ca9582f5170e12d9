"""A Gaussian blur, for models that sharpen."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="blur_gaussian", control_types=("Tile",), sliders=(Slider("Sigma", 0.01, 64, 0.01, 9, "px"),)
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import blur_gaussian

    return blur_gaussian
