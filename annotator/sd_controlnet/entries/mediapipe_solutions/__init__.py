"""Faces, one person's body, hands and person masks by MediaPipe, whose models come with the library (Apache-2.0)."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, Slider

LIBRARIES = (
    Library("mediapipe", minimum="0.10.5", below="0.10.30", why="later releases have no models"),
    Library("absl", "absl-py", why="mediapipe imports it"),
    Library("flatbuffers", why="mediapipe imports it"),
    Library("matplotlib", why="mediapipe imports it"),
    Library("google.protobuf", "protobuf", why="mediapipe imports it"),
)

SPECS = (
    PreprocessorSpec(
        id="mediapipe_face",
        aliases=("MediaPipe-FaceMeshPreprocessor",),
        shows="lines",
        sliders=(
            Slider("Max Faces", 1, 10, 1, 1),
            Slider("Min Face Confidence", 0.01, 1.0, 0.01, 0.5),
        ),
        libraries=LIBRARIES,
    ),
    PreprocessorSpec(
        id="mediapipe_pose",
        control_types=("OpenPose",),
        sliders=(Slider("Min Pose Confidence", 0.01, 1.0, 0.01, 0.5),),
        libraries=LIBRARIES,
    ),
    PreprocessorSpec(
        id="mediapipe_hands",
        control_types=("OpenPose",),
        sliders=(
            Slider("Max Hands", 1, 10, 1, 4),
            Slider("Min Hand Confidence", 0.01, 1.0, 0.01, 0.5),
        ),
        libraries=LIBRARIES,
    ),
    PreprocessorSpec(
        id="mediapipe_person_mask",
        shows="segments",
        sliders=(Slider("Mask Threshold", 0.0, 1.0, 0.01, 0.5),),
        libraries=LIBRARIES,
    ),
)


def load(runtime: Runtime, id_: str) -> Detector:
    """Each run makes and closes its own graph: it is cheap beside the run, and no two threads share one."""
    from .detector import Face, Hands, PersonMask, Pose

    kinds = {
        "mediapipe_face": Face,
        "mediapipe_pose": Pose,
        "mediapipe_hands": Hands,
        "mediapipe_person_mask": PersonMask,
    }
    return kinds[id_](runtime)
