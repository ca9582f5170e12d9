"""Classes of ADE20K or COCO for every pixel, by OneFormer on Swin-L (Jain et al., 2022, arXiv:2211.06220)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

_FILE: dict[str, Any] = {"folder": "oneformer", "size": 949_000_000, "licence": "MIT", "repo": "lllyasviel/Annotators"}
_ADE20K = WeightFile(name="250_16_swin_l_oneformer_ade20k_160k.pth", **_FILE)
_COCO = WeightFile(name="150_16_swin_l_oneformer_coco_100ep.pth", **_FILE)
_NEEDS: dict[str, Any] = {
    "control_types": ("Segmentation",),
    "libraries": (Library("transformers", minimum="4.30"),),
    "full_because": "on the border of two classes a rounding makes another class",
}

SPECS = (
    PreprocessorSpec(
        id="oneformer_ade20k",
        label="seg_ofade20k",
        aliases=("OneFormer-ADE20K-SemSegPreprocessor",),
        finds="the classes of ADE20K",
        rank=100,
        weights=(_ADE20K,),
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="oneformer_coco",
        label="seg_ofcoco",
        aliases=("OneFormer-COCO-SemSegPreprocessor",),
        weights=(_COCO,),
        **_NEEDS,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """A colour for each class."""
    from .detector import OneFormer

    return OneFormer(runtime, id_, _ADE20K if id_ == "oneformer_ade20k" else _COCO)
