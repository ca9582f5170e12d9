"""Faces, by InsightFace: who it is, as numbers, and where eyes, nose and mouth are (Deng et al., 2019)."""

from __future__ import annotations

from typing import Any

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile, resolution_slider
from ..clip_vision import CLIP_H, TRANSFORMERS

LIBRARIES = (
    Library(
        "insightface",
        minimum="0.7",
        why="it finds and recognises faces; its models may be used for non-commercial research alone",
    ),
    Library("onnxruntime", minimum="1.14", why="it runs InsightFace's networks"),
)
_LICENCE = "non-commercial research only"
_BUFFALO: dict[str, Any] = {
    "folder": "insightface/models/buffalo_l",
    "licence": _LICENCE,
    "note": "buffalo_l.zip at github.com/deepinsight/insightface/releases/tag/v0.7",
}
_ANTELOPE: dict[str, Any] = {
    "folder": "insightface/models/antelopev2",
    "licence": _LICENCE,
    "repo": "DIAMONIK7777/antelopev2",
}
BUFFALO = (
    WeightFile(name="det_10g.onnx", size=16_923_827, **_BUFFALO),
    WeightFile(name="w600k_r50.onnx", size=174_383_860, **_BUFFALO),
)
ANTELOPE = (
    WeightFile(name="scrfd_10g_bnkps.onnx", size=16_923_827, **_ANTELOPE),
    WeightFile(name="glintr100.onnx", size=260_665_334, **_ANTELOPE),
)
_IP_ADAPTER: dict[str, Any] = {
    "control_types": ("IP-Adapter",),
    "resolution": None,
    "returns_image": False,
    "hides_control_mode": True,
    "full_because": "the file says in which type its network computes",
}
_INSTANT_ID: dict[str, Any] = {
    "control_types": ("Instant-ID",),
    "weights": ANTELOPE,
    "libraries": LIBRARIES,
    "full_because": "the file says in which type its network computes",
}

SPECS = (
    PreprocessorSpec(id="ip-adapter_face_id", embedding="face_id", weights=BUFFALO, libraries=LIBRARIES, **_IP_ADAPTER),
    PreprocessorSpec(
        id="ip-adapter_face_id_plus",
        aliases=("InsightFace+CLIP-H (IPAdapter)",),
        embedding="face_id_plus",
        weights=(*BUFFALO, CLIP_H),
        libraries=(*LIBRARIES, TRANSFORMERS),
        **_IP_ADAPTER,
    ),
    PreprocessorSpec(
        id="instant_id_face_embedding",
        aliases=("InsightFace (InstantID)",),
        returns_image=False,
        embedding="instant_id",
        **_INSTANT_ID,
    ),
    # SDXL's pictures are of that size, and the dots are of one size in the map
    PreprocessorSpec(
        id="instant_id_face_keypoints",
        face_points=True,
        shows="poses",
        resolution=resolution_slider(1024),
        **_INSTANT_ID,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Entries of the same weights share their networks."""
    from .detector import FaceId, FaceIdPlus, InstantIdEmbedding, InstantIdKeypoints

    if id_ == "ip-adapter_face_id":
        return FaceId(runtime, BUFFALO)
    if id_ == "ip-adapter_face_id_plus":
        from ..clip_vision.detector import ClipVision

        return FaceIdPlus(runtime, BUFFALO, ClipVision(runtime, CLIP_H))
    kind = InstantIdEmbedding if id_ == "instant_id_face_embedding" else InstantIdKeypoints
    return kind(runtime, ANTELOPE)
