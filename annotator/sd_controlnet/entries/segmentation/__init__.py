"""Classes of ADE20K for every pixel, by UniFormer (Li et al., 2022, arXiv:2201.09450) with UPerNet's head."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="upernet_global_small.pth",
    folder="uniformer",
    size=206_313_115,
    licence="Apache-2.0",
    repo="lllyasviel/ControlNet",
    path="annotator/ckpts/upernet_global_small.pth",
)

SPEC = PreprocessorSpec(
    id="segmentation",
    label="seg_ufade20k",
    aliases=("UniFormer-SemSegPreprocessor", "SemSegPreprocessor"),
    control_types=("Segmentation",),
    finds="the classes of ADE20K",
    weights=(WEIGHTS,),
    full_because="on the border of two classes a rounding makes another class",
    libraries=(Library("transformers", minimum="4.30"),),
)


def load(runtime: Runtime) -> Detector:
    """A colour for each class."""
    from .detector import Segmentation

    return Segmentation(runtime, WEIGHTS)
