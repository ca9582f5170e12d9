"""Anime pictures as line drawings, by the network of informative-drawings' authors trained on anime."""

from __future__ import annotations

from ...spec import FLOAT16, Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="netG.pth", folder="lineart_anime", size=217_668_749, licence="MIT", repo="lllyasviel/Annotators"
)

SPEC = PreprocessorSpec(
    id="lineart_anime",
    aliases=("AnimeLineArtPreprocessor",),
    control_types=("Lineart",),
    weights=(WEIGHTS,),
    half=FLOAT16,
    libraries=(Library("controlnet_aux", "controlnet-aux", "0.0.7"),),
)


def load(runtime: Runtime) -> Detector:
    """White lines on black."""
    from .detector import LineartAnime

    return LineartAnime(runtime, WEIGHTS)
