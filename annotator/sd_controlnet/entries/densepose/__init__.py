"""The 24 parts of people's bodies, as a heat map's colours, by DensePose (Güler et al., 2018, arXiv:1802.00434)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="densepose_r50_fpn_dl.torchscript",
    folder="densepose",
    size=256_000_000,
    licence="MIT",
    repo="LayerNorm/DensePose-TorchScript-with-hint-image",
)
_NEEDS: dict[str, Any] = {
    "control_types": ("OpenPose",),
    "shows": "segments",
    "weights": (WEIGHTS,),
    "full_because": "the code in its file computes in float32",
    "libraries": (Library("torchvision", why="the network's file calls its operators"),),
}

SPECS = (
    PreprocessorSpec(
        id="densepose",
        label="densepose (pruple bg & purple torso)",
        aliases=("DensePosePreprocessor",),
        **_NEEDS,
    ),
    PreprocessorSpec(id="densepose_parula", label="densepose_parula (black bg & blue torso)", **_NEEDS),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One network, two scales of colours."""
    from .detector import DensePose

    return DensePose(runtime, WEIGHTS, viridis=id_ == "densepose")
