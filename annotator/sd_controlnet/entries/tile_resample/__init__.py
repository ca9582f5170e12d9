"""The picture itself or a smaller copy, for models that redraw its details."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

SPEC = PreprocessorSpec(
    id="tile_resample",
    control_types=("Tile",),
    rank=100,
    resolution=None,
    sliders=(Slider("Down Sampling Rate", 1, 8, 0.01, 1, "x"),),
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import tile_resample

    return tile_resample
