"""Photographs as line drawings (Chan, Durand and Isola, 2022, arXiv:2203.12691)."""

from __future__ import annotations

from ...spec import FLOAT16, Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = {
    id_: WeightFile(name=name, folder="lineart", size=17_173_511, licence="MIT", repo="lllyasviel/Annotators")
    for id_, name in (("lineart", "sk_model.pth"), ("lineart_coarse", "sk_model2.pth"))
}
_LIBRARIES = (Library("controlnet_aux", "controlnet-aux", "0.0.7"),)

SPECS = (
    PreprocessorSpec(
        id="lineart",
        label="lineart_realistic",
        aliases=("LineArtPreprocessor",),
        control_types=("Lineart",),
        weights=(WEIGHTS["lineart"],),
        libraries=_LIBRARIES,
        half=FLOAT16,
    ),
    PreprocessorSpec(
        id="lineart_coarse",
        control_types=("Lineart",),
        weights=(WEIGHTS["lineart_coarse"],),
        libraries=_LIBRARIES,
        half=FLOAT16,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One architecture with two sets of weights, for fine and for coarse lines."""
    from .detector import Lineart

    return Lineart(runtime, id_, WEIGHTS[id_])
