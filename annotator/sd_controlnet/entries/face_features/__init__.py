"""A face alone, grey on white: found by RetinaFace (Deng et al., 2019, arXiv:1905.00641), cut out by BiSeNet (Yu et
al., 2018, arXiv:1808.00897). What PuLID's identity is made from."""

from __future__ import annotations

from ...spec import Detector, Library, PreprocessorSpec, Runtime, WeightFile

_RELEASES = "https://github.com/xinntao/facexlib/releases/download"
FINDER = WeightFile(
    name="detection_Resnet50_Final.pth",
    folder="facexlib",
    size=109_000_000,
    licence="its authors' own, to which facexlib refers",
    note=f"{_RELEASES}/v0.1.0/detection_Resnet50_Final.pth",
)
PARTS = WeightFile(
    name="parsing_bisenet.pth",
    folder="facexlib",
    size=53_000_000,
    licence="its authors' own, to which facexlib refers",
    note=f"{_RELEASES}/v0.2.0/parsing_bisenet.pth",
)
LIBRARIES = (
    Library("facexlib", why="it finds a face and cuts it out"),
    Library("torchvision", why="facexlib is built on it"),
)

SPEC = PreprocessorSpec(
    id="facexlib",
    shows="pictures",
    resolution=None,
    full_because="on the border of two classes a rounding makes another class",
    weights=(FINDER, PARTS),
    libraries=LIBRARIES,
)


def load(runtime: Runtime) -> Detector:
    """Two networks."""
    from .detector import FaceFeatures

    return FaceFeatures(runtime, FINDER, PARTS)
