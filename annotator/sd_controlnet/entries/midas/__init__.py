"""Relative depth by MiDaS 3's hybrid of ResNet and transformer (Ranftl et al., 2021, arXiv:2103.13413), and normals."""

from __future__ import annotations

from ...spec import FLOAT16, Detector, Library, PreprocessorSpec, Runtime, Slider, WeightFile

WEIGHTS = WeightFile(
    name="dpt_hybrid-midas-501f0c75.pt",
    folder="midas",
    size=492_757_791,
    licence="MIT",
    repo="lllyasviel/ControlNet",
    path="annotator/ckpts/dpt_hybrid-midas-501f0c75.pt",
    sha256="501f0c75",
)
_NEEDS = {"weights": (WEIGHTS,), "libraries": (Library("transformers", minimum="4.30"),)}

SPECS = (
    PreprocessorSpec(
        id="depth",
        label="depth_midas",
        aliases=("MiDaS-DepthMapPreprocessor",),
        control_types=("Depth",),
        finds="depth",
        rank=100,
        half=FLOAT16,
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="normal_map",
        label="normal_midas",
        aliases=("MiDaS-NormalMapPreprocessor",),
        control_types=("NormalMap",),
        sliders=(Slider("Normal Background Threshold", 0, 1, 0.01, 0.4),),
        full_because="slopes of neighbouring pixels magnify roundings, and the background begins at a threshold",
        **_NEEDS,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One network for both."""
    from .detector import Midas

    return Midas(runtime, id_, WEIGHTS)
