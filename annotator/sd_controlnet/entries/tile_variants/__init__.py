"""Other ways to take the details out of a picture, for tile models that were trained with them."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, Slider

_SCALE = Slider("Scale Factor", 1, 8, 0.01, 1, "x")
_BLUR = Slider("Blur Strength", 1, 10, 0.01, 2, "px")

SPECS = (
    PreprocessorSpec(
        id="tile_pyramid",
        aliases=("TilePreprocessor",),
        control_types=("Tile",),
        resolution=None,
        sliders=(Slider("Pyramid Levels", 1, 10, 1, 3),),
    ),
    PreprocessorSpec(
        id="tile_ttplanet_simple",
        aliases=("TTPlanet_TileSimple_Preprocessor",),
        control_types=("Tile",),
        resolution=None,
        sliders=(_SCALE, _BLUR),
    ),
    PreprocessorSpec(
        id="tile_ttplanet_gf",
        label="tile_ttplanet_guided_filter",
        aliases=("TTPlanet_TileGF_Preprocessor",),
        control_types=("Tile",),
        resolution=None,
        sliders=(_SCALE, _BLUR),
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """No weights."""
    from . import detector

    return {
        "tile_pyramid": detector.pyramid,
        "tile_ttplanet_simple": detector.simple,
        "tile_ttplanet_gf": detector.guided,
    }[id_]
