"""Who it is, for PuLID (Guo et al., 2024, arXiv:2404.16022): by InsightFace, and by EVA-CLIP of the face alone."""

from __future__ import annotations

from ...spec import Detector, PreprocessorSpec, Runtime, WeightFile
from ..face_features import FINDER, PARTS
from ..face_features import LIBRARIES as FACEXLIB
from ..faces import ANTELOPE
from ..faces import LIBRARIES as INSIGHTFACE

EVA = WeightFile(
    name="EVA02_CLIP_L_336_psz14_s6B.pt",
    folder="eva_clip",
    size=856_461_210,
    licence="MIT",
    repo="QuanSun/EVA-CLIP",
)

SPEC = PreprocessorSpec(
    id="ip-adapter_pulid",
    control_types=("IP-Adapter",),
    resolution=None,
    returns_image=False,
    embedding="pulid",
    hides_control_mode=True,
    weights=(*ANTELOPE, FINDER, PARTS, EVA),
    libraries=(*INSIGHTFACE, *FACEXLIB),
    full_because="on the border of what is the face and what is not a rounding makes another picture",
)


def load(runtime: Runtime) -> Detector:
    """Five networks; four of them are those of `instant_id_face_embedding` and `facexlib`."""
    from ..face_features.detector import FaceFeatures
    from ..faces.detector import Faces
    from .detector import Pulid

    return Pulid(runtime, Faces(runtime, ANTELOPE), FaceFeatures(runtime, FINDER, PARTS), EVA)
