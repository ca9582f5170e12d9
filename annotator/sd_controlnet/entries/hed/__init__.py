"""Soft edges of a picture by a network that learned what people outline (Xie and Tu, 2015, arXiv:1504.06375)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

WEIGHTS = WeightFile(
    name="ControlNetHED.pth", folder="hed", size=29_444_406, licence="Apache-2.0", repo="lllyasviel/Annotators"
)
_STEPS = "a rounding moves pixels over the steps"
_NEEDS: dict[str, Any] = {"weights": (WEIGHTS,), "libraries": (Library("controlnet_aux", "controlnet-aux", "0.0.7"),)}

SPECS = (
    PreprocessorSpec(
        id="hed",
        label="softedge_hed",
        aliases=("HEDPreprocessor",),
        control_types=("SoftEdge",),
        finds="soft edges",
        half=("float16", "bfloat16"),
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="hed_safe",
        label="softedge_hedsafe",
        control_types=("SoftEdge",),
        finds="soft edges",
        full_because=_STEPS,
        **_NEEDS,
    ),
    PreprocessorSpec(
        id="scribble_hed",
        aliases=("FakeScribblePreprocessor",),
        control_types=("Scribble", "SparseCtrl"),
        finds="a picture as a scribble",
        full_because=_STEPS,
        **_NEEDS,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """One network for all three."""
    from .detector import Hed

    return Hed(runtime, id_, WEIGHTS)
