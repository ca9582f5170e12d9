"""Networks of poses."""

from __future__ import annotations

from pathlib import Path

import torch

from annotator.sd_controlnet.entries.openpose.face_net import FaceNet
from annotator.sd_controlnet.libraries import controlnet_aux


def _openpose(name: str, file: Path) -> None:
    torch.manual_seed(0)
    state = getattr(controlnet_aux("open_pose.model"), name)().state_dict()
    torch.save({key.partition(".")[2]: value for key, value in state.items()}, file)


def body(file: Path) -> None:
    _openpose("bodypose_model", file)


def hand(file: Path) -> None:
    _openpose("handpose_model", file)


def face(file: Path) -> None:
    torch.manual_seed(0)
    torch.save(FaceNet().state_dict(), file)


MAKERS = {"body_pose_model.pth": body, "hand_pose_model.pth": hand, "facenet.pth": face}
