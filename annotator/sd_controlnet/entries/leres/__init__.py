"""Depth by LeReS (Yin et al., 2021, arXiv:2012.09365), and with BoostingMonocularDepth (Miangoleh et al., 2021)."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, Slider, WeightFile

WEIGHTS = WeightFile(
    name="res101.pth",
    folder="leres",
    size=530_757_443,
    licence="non-commercial (AdelaiDepth)",
    repo="lllyasviel/Annotators",
)
MERGER = WeightFile(
    name="latest_net_G.pth",
    folder="leres",
    size=318_268_048,
    licence="academic use only (BoostingMonocularDepth)",
    repo="lllyasviel/Annotators",
)
_LIBRARIES = (Library("controlnet_aux", "controlnet-aux", "0.0.7"),)
_SLIDERS = (Slider("Remove Near %", 0, 100, 0.1, 0), Slider("Remove Background %", 0, 100, 0.1, 0))

SPECS = (
    PreprocessorSpec(
        id="depth_leres",
        aliases=("LeReS-DepthMapPreprocessor",),
        control_types=("Depth",),
        finds="depth",
        sliders=_SLIDERS,
        weights=(WEIGHTS,),
        libraries=_LIBRARIES,
        full_because="it was given 0..255 under the statistics for 0..1, and float16 ends near what comes of that",
    ),
    PreprocessorSpec(
        id="depth_leres++",
        control_types=("Depth",),
        finds="depth",
        sliders=_SLIDERS,
        weights=(WEIGHTS, MERGER),
        libraries=_LIBRARIES,
        full_because="it was given 0..255 under the statistics for 0..1, and float16 ends near what comes of that",
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One depth network for both; the second merges many of its estimates."""
    from .detector import Leres

    return Leres(runtime, WEIGHTS, MERGER if id_ == "depth_leres++" else None)
