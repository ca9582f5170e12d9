"""Scribble lines as a thresholded difference of Gaussians."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="scribble_xdog",
    aliases=("Scribble_XDoG_Preprocessor",),
    control_types=("Scribble", "SparseCtrl"),
    finds="a picture as a scribble",
    sliders=(Slider("XDoG Threshold", 1, 64, 0.01, 32),),
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import scribble_xdog

    return scribble_xdog
