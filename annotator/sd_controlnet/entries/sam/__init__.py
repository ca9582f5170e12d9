"""Everything in a picture that looks like one thing, each in a colour of its own, by Segment Anything (Kirillov et al.,
2023, arXiv:2304.02643) and by MobileSAM, its small successor (Zhang et al., 2023, arXiv:2306.14289)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

MOBILE = WeightFile(
    name="mobile_sam.pt", folder="mobile_sam", size=40_700_000, licence="Apache-2.0", repo="dhkim2810/MobileSAM"
)
VIT_B = WeightFile(
    name="sam_vit_b_01ec64.pth",
    folder="sam",
    size=375_000_000,
    licence="Apache-2.0",
    repo="ybelkada/segment-anything",
    path="checkpoints/sam_vit_b_01ec64.pth",
)
_NEEDS: dict[str, Any] = {
    "control_types": ("Segmentation",),
    "shows": "regions",
    "full_because": "a rounding takes or leaves whole segments at the thresholds",
    "libraries": (Library("controlnet_aux", "controlnet-aux", "0.0.9"),),
}

SPECS = (
    PreprocessorSpec(id="mobile_sam", weights=(MOBILE,), **_NEEDS),
    # comfyui_controlnet_aux began with MobileSAM under this name and runs ViT-B today
    PreprocessorSpec(id="sam_vit_b", aliases=("SAMPreprocessor",), weights=(VIT_B,), **_NEEDS),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One network for each; its kind and sizes follow from the file."""
    from .detector import SegmentAnything

    return SegmentAnything(runtime, MOBILE if id_ == "mobile_sam" else VIT_B)
