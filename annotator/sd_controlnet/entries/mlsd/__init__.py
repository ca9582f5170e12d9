"""Straight lines of a picture (Gu et al., 2021, arXiv:2106.00186)."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, Slider, WeightFile

WEIGHTS = WeightFile(
    name="mlsd_large_512_fp32.pth",
    folder="mlsd",
    size=6_341_481,
    licence="Apache-2.0",
    repo="lllyasviel/ControlNet",
    path="annotator/ckpts/mlsd_large_512_fp32.pth",
)

SPEC = PreprocessorSpec(
    id="mlsd",
    aliases=("M-LSDPreprocessor",),
    control_types=("MLSD",),
    rank=100,
    sliders=(
        Slider("MLSD Value Threshold", 0.01, 2.0, 0.01, 0.1),
        Slider("MLSD Distance Threshold", 0.01, 20.0, 0.01, 0.1),
    ),
    soft_weights_in_hires=True,
    weights=(WEIGHTS,),
    full_because="a rounding adds or takes away lines at the thresholds",
    libraries=(Library("controlnet_aux", "controlnet-aux", "0.0.7"),),
)


def load(runtime: Runtime) -> Detector:
    """Lines are drawn one pixel wide."""
    from .detector import Mlsd

    return Mlsd(runtime, WEIGHTS)
