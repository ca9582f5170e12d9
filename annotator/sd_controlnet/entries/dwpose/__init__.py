"""Whole bodies of people by DWPose (Yang et al., 2023, arXiv:2307.15880); animals by RTMPose. YOLOX finds both."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

ONNX = Library("onnxruntime", minimum="1.14", why="it runs the networks")
FINDER = WeightFile(name="yolox_l.onnx", folder="openpose", size=216_746_733, licence="Apache-2.0", repo="yzd-v/DWPose")
PEOPLE = WeightFile(
    name="dw-ll_ucoco_384.onnx", folder="openpose", size=134_399_116, licence="Apache-2.0", repo="yzd-v/DWPose"
)
_ANIMALS = "rtmpose-m_simcc-ap10k_pt-aic-coco_210e-256x256-7a041aa1_20230206.onnx"
ANIMALS = WeightFile(
    name=_ANIMALS,
    folder="openpose",
    size=54_600_000,
    licence="Apache-2.0",
    repo="bdsqlsz/qinglong_controlnet-lllite",
    path=f"Annotators/{_ANIMALS}",
)

SPECS = (
    PreprocessorSpec(
        id="dw_openpose_full",
        aliases=("DWPreprocessor",),
        control_types=("OpenPose",),
        finds="whole poses",
        weights=(FINDER, PEOPLE),
        libraries=(ONNX,),
        full_because="the file says in which type its network computes",
    ),
    PreprocessorSpec(
        id="animal_openpose",
        aliases=("AnimalPosePreprocessor",),
        control_types=("OpenPose",),
        weights=(FINDER, ANIMALS),
        libraries=(ONNX,),
        full_because="the file says in which type its network computes",
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Both share the network that finds them."""
    from .detector import Animals, WholeBodies

    if id_ == "dw_openpose_full":
        return WholeBodies(runtime, FINDER, PEOPLE)
    return Animals(runtime, FINDER, ANIMALS)
