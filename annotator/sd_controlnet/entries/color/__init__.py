"""A mosaic of squares of 64 pixels, for the T2I-Adapter of colours."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="color",
    label="t2ia_color_grid",
    aliases=("ColorPreprocessor",),
    control_types=("T2I-Adapter",),
    shows="pictures",
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import color_grid

    return color_grid
