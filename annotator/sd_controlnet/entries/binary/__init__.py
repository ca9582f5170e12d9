"""White where the picture's grey is above a threshold that may be found by Otsu's method."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="binary",
    aliases=("BinaryPreprocessor", "Binary Lines"),
    shows="segments",
    sliders=(Slider("Binarization Threshold (0 or 255: Otsu)", 0, 255, 1, 100),),
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import binary

    return binary
