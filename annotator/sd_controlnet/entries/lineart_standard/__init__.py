"""Dark lines of a drawing or a photograph on a bright ground, as white lines on black, without a network."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="lineart_standard",
    label="lineart_standard (from white bg & black line)",
    aliases=("LineartStandardPreprocessor",),
    control_types=("Lineart",),
    rank=100,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import lineart_standard

    return lineart_standard
