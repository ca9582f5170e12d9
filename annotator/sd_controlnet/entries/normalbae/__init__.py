"""Normals of surfaces with their uncertainty as guide (Bae et al., 2021, arXiv:2109.09881), trained on ScanNet."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="scannet.pt", folder="normal_bae", size=291_024_309, licence="MIT", repo="lllyasviel/Annotators"
)

SPEC = PreprocessorSpec(
    id="normal_bae",
    aliases=("normalbae", "BAE-NormalMapPreprocessor"),
    control_types=("NormalMap",),
    rank=100,
    weights=(WEIGHTS,),
    half=("float16", "bfloat16"),
    libraries=(Library("controlnet_aux", "controlnet-aux", "0.0.7"),),
)


def load(runtime: Runtime) -> Detector:
    """One network."""
    from .detector import NormalBae

    return NormalBae(runtime, WEIGHTS)
