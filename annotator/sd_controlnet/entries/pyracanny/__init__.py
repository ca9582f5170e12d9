"""Canny edges of nine sizes of the picture, laid over one another: soft, and missing no structure of any size."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="pyracanny",
    aliases=("PyraCannyPreprocessor", "canny_pyramid"),
    control_types=("Canny",),
    sliders=(Slider("Low Threshold", 1, 255, 1, 64), Slider("High Threshold", 1, 255, 1, 128)),
    soft_weights_in_hires=True,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import pyracanny

    return pyracanny
