"""White where a pixel is bright in all channels, black elsewhere."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="threshold", sliders=(Slider("Binarization Threshold", 0, 255, 0.01, 127),), shows="segments"
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import threshold

    return threshold
