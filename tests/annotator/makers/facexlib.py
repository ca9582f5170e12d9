"""facexlib's two networks at their one size, where a torchvision lets the library be imported."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from .segmentation import lively


def finder(file: Path) -> None:
    retinaface = importlib.import_module("facexlib.detection.retinaface")
    network = lively(retinaface.RetinaFace(network_name="resnet50", half=False, device="cpu"), 4)
    # else hardly anything is a face with a certainty of 97 %, and all faces are of astronomic sizes
    for heads, scale in ((network.ClassHead, 3.0), (network.BboxHead, 0.1), (network.LandmarkHead, 0.5)):
        for head in heads:
            head.conv1x1.weight.data.mul_(scale)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, file)


def parts(file: Path) -> None:
    bisenet = importlib.import_module("facexlib.parsing.bisenet")
    torch.save(lively(bisenet.BiSeNet(num_class=19), 5).state_dict(), file)


MAKERS = {"detection_Resnet50_Final.pth": finder, "parsing_bisenet.pth": parts}
