"""Black lines on white to white lines on black."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="invert",
    label="invert (from white bg & black line)",
    control_types=("Canny", "Lineart", "Scribble", "MLSD"),
    rank=20,
    reads_dark_lines=True,
    resolution=None,
    reads_map=True,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import invert

    return invert
