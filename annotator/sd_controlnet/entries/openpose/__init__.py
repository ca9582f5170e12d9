"""People's joints, hands and faces by OpenPose's networks (Cao et al., 2018, arXiv:1812.08008)."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

_LICENCE = "CMU, free for non-commercial use"


def _weight(name: str, size: int) -> WeightFile:
    return WeightFile(name=name, folder="openpose", size=size, licence=_LICENCE, repo="lllyasviel/Annotators")


BODY = _weight("body_pose_model.pth", 209_267_595)
HAND = _weight("hand_pose_model.pth", 147_341_049)
FACE = _weight("facenet.pth", 153_718_792)


def _spec(id_: str, *more: WeightFile, rank: int = 0, aliases: tuple[str, ...] = ()) -> PreprocessorSpec:
    return PreprocessorSpec(
        id=id_,
        aliases=aliases,
        control_types=("OpenPose",),
        finds="whole poses" if rank else "",
        rank=rank,
        full_because="a rounding moves joints by a pixel, or takes them away at the thresholds",
        weights=(BODY, *more),
        libraries=(Library("controlnet_aux", "controlnet-aux", "0.0.7"),),
    )


SPECS = (
    _spec("openpose_full", HAND, FACE, rank=100, aliases=("OpenposePreprocessor",)),
    _spec("openpose"),
    _spec("openpose_face", FACE),
    _spec("openpose_faceonly", FACE),
    _spec("openpose_hand", HAND),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """The networks are shared; `id_` says what is looked for and drawn."""
    from .detector import OpenPose

    hand = HAND if id_ in ("openpose_full", "openpose_hand") else None
    face = FACE if id_ in ("openpose_full", "openpose_face", "openpose_faceonly") else None
    return OpenPose(runtime, BODY, hand, face, draws_body=id_ != "openpose_faceonly")
