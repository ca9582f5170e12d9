"""A drawing in dark lines on white as white lines on black (ControlNet 1.0's "scribble")."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime

SPEC = PreprocessorSpec(
    id="scribble",
    label="scribble (from white bg & dark lines)",
    aliases=("scribble_drawing",),
    control_types=("Scribble", "SparseCtrl"),
    rank=30,
    reads_map=True,
    reads_dark_lines=True,
)


def load(runtime: Runtime) -> Detector:
    """No weights."""
    from .detector import scribble

    return scribble
