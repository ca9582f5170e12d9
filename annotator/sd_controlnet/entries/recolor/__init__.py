"""The picture's light without its colours; afterwards the result gets this light back (the engine's effect)."""

from __future__ import annotations

from functools import partial

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

_GAMMA = Slider("Gamma Correction", 0.1, 2, 0.001, 1)

SPECS = (
    PreprocessorSpec(
        id="recolor_luminance",
        aliases=("ImageLuminanceDetector",),
        control_types=("Recolor",),
        rank=100,
        resolution=None,
        sliders=(_GAMMA,),
        effect="recolor",
        effect_options={"light": "luminance"},
    ),
    PreprocessorSpec(
        id="recolor_intensity",
        aliases=("ImageIntensityDetector",),
        control_types=("Recolor",),
        resolution=None,
        sliders=(_GAMMA,),
        effect="recolor",
        effect_options={"light": "intensity"},
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """No weights."""
    from .detector import recolor

    return partial(recolor, luminance=id_ == "recolor_luminance")
