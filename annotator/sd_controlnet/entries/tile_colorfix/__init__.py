"""The picture itself; while sampling, the latent's low frequencies are held to it (the engine's effect)."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

_VARIATION = Slider("Variation", 3, 32, 1, 8)

SPECS = (
    PreprocessorSpec(
        id="tile_colorfix", control_types=("Tile",), resolution=None, sliders=(_VARIATION,), effect="tile_colorfix"
    ),
    PreprocessorSpec(
        id="tile_colorfix+sharp",
        control_types=("Tile",),
        resolution=None,
        sliders=(_VARIATION, Slider("Sharpness", 0, 2, 0.01, 1)),
        effect="tile_colorfix",
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Both show the picture itself; they differ in what is done while sampling."""
    from ..none.detector import identity

    return identity
