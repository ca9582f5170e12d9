"""Lines of manga and anime without screentones (Li et al., 2017: "Deep Extraction of Manga Structural Lines")."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="erika.pth", folder="manga_line", size=172_800_000, licence="MIT", repo="lllyasviel/Annotators"
)

SPEC = PreprocessorSpec(
    id="lineart_anime_denoise",
    aliases=("Manga2Anime_LineArt_Preprocessor",),
    control_types=("Lineart",),
    weights=(WEIGHTS,),
    full_because="its numbers leave the range of float16, and bfloat16 is too coarse for 0..255",
)


def load(runtime: Runtime) -> Detector:
    """White lines on black."""
    from .detector import MangaLine

    return MangaLine(runtime, WEIGHTS)
