"""Faces of anime characters in seven parts, by a U-Net on MobileNetV2 (siyeong0/Anime-Face-Segmentation)."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="UNet.pth",
    folder="anime_face_segment",
    size=6_401_371,
    licence="MIT",
    repo="bdsqlsz/qinglong_controlnet-lllite",
    path="Annotators/UNet.pth",
)

SPEC = PreprocessorSpec(
    id="anime_face_segment",
    label="seg_anime_face",
    aliases=("AnimeFace_SemSegPreprocessor",),
    control_types=("Segmentation",),
    weights=(WEIGHTS,),
    full_because="on the border of two classes a rounding makes another class",
)


def load(runtime: Runtime) -> Detector:
    """A colour for each part."""
    from .detector import AnimeFaceSegment

    return AnimeFaceSegment(runtime, WEIGHTS)
