"""Soft edges of a picture by a small network of pixel differences (Su et al., 2021, arXiv:2108.07009)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="table5_pidinet.pth",
    folder="pidinet",
    size=2_871_148,
    licence="research only, commercial use by agreement with the authors",
    repo="lllyasviel/Annotators",
)
_NEEDS: dict[str, Any] = {
    "weights": (WEIGHTS,),
    "libraries": (Library("controlnet_aux", "controlnet-aux", "0.0.7"),),
    "full_because": "it computes with differences of neighbours, in which roundings weigh more than 1/255",
}

SPECS = (
    PreprocessorSpec(
        id="pidinet",
        label="softedge_pidinet",
        aliases=("PiDiNetPreprocessor",),
        control_types=("SoftEdge",),
        finds="soft edges",
        rank=100,
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="pidinet_safe", label="softedge_pidisafe", control_types=("SoftEdge",), finds="soft edges", **_NEEDS
    ),
    PreprocessorSpec(
        id="pidinet_scribble",
        label="scribble_pidinet",
        aliases=("Scribble_PiDiNet_Preprocessor",),
        control_types=("Scribble", "SparseCtrl"),
        finds="a picture as a scribble",
        rank=100,
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="pidinet_sketch", label="t2ia_sketch_pidi", control_types=("T2I-Adapter",), shows="lines", **_NEEDS
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One network for all four."""
    from .detector import PiDiNet

    return PiDiNet(runtime, id_, WEIGHTS)
