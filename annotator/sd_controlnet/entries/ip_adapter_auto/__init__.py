"""The preprocessor that gives what the unit's model reads: the engine puts that one in its place."""

from __future__ import annotations

from ...spec import AnnotatorError, Detector, PreprocessorSpec, Runtime
from ..clip_vision import CENTRE_CROP

SPEC = PreprocessorSpec(
    id="ip-adapter-auto",
    control_types=("IP-Adapter",),
    rank=1000,
    resolution=None,
    sliders=(CENTRE_CROP,),
    returns_image=False,
    accepts_mask=True,
    hides_control_mode=True,
    by_model=True,
    full_because="it computes nothing itself",
)


def load(runtime: Runtime) -> Detector:
    """Raises AnnotatorError: by itself it can do nothing."""
    del runtime
    raise AnnotatorError(
        f'"{SPEC.id}" stands for the preprocessor that a control model reads, and there is none to be asked',
        remedy="choose ip-adapter_clip_h, ip-adapter_clip_g, ip-adapter_face_id or ip-adapter_face_id_plus",
    )
