"""Normals from a picture that is a depth map already, of any origin: near is white."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="normal_from_depth",
    label="normal_from_depth (from a depth map)",
    control_types=("NormalMap",),
    reads_map=True,
    sliders=(
        Slider("Strength", 0.1, 10, 0.1, 1),
        Slider("Normal Background Threshold", 0, 1, 0.01, 0),
    ),
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import normal_from_depth

    return normal_from_depth
