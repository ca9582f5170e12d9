"""Edges by hysteresis of the gradient (J. Canny, 1986), in white on black."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="canny",
    aliases=("CannyEdgePreprocessor",),
    control_types=("Canny",),
    rank=100,
    sliders=(Slider("Low Threshold", 1, 255, 1, 100), Slider("High Threshold", 1, 255, 1, 200)),
    soft_weights_in_hires=True,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import canny

    return canny
