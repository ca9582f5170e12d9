"""The face network of OpenPose under its published names (facenet.pth).

Written here, since the module of controlnet_aux that has it imports torchvision.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POINTS = 71
_STAGES = (2, 3, 4, 5, 6)
# VGG's layers: (name, inputs, outputs), a pooling after each None
_FEATURES = (
    ("conv1_1", 3, 64), ("conv1_2", 64, 64), None, ("conv2_1", 64, 128), ("conv2_2", 128, 128), None,
    ("conv3_1", 128, 256), ("conv3_2", 256, 256), ("conv3_3", 256, 256), ("conv3_4", 256, 256), None,
    ("conv4_1", 256, 512), ("conv4_2", 512, 512), ("conv4_3", 512, 512), ("conv4_4", 512, 512),
    ("conv5_1", 512, 512), ("conv5_2", 512, 512), ("conv5_3_CPM", 512, 128),
)  # fmt: skip


class FaceNet(nn.Module):
    """(B, 3, h, w) in -0.5..0.5 to heat maps (B, 71, h / 8, w / 8), refined in six stages."""

    def __init__(self) -> None:
        super().__init__()
        for layer in _FEATURES:
            if layer is not None:
                self.add_module(layer[0], nn.Conv2d(layer[1], layer[2], 3, padding=1))
        self.conv6_1_CPM = nn.Conv2d(128, 512, 1)
        self.conv6_2_CPM = nn.Conv2d(512, POINTS, 1)
        for stage in _STAGES:
            for number in range(1, 8):
                inputs = 128 + POINTS if number == 1 else 128
                outputs, kernel = (POINTS if number == 7 else 128), (7 if number < 6 else 1)
                self.add_module(f"Mconv{number}_stage{stage}", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))

    def forward(self, x: Tensor) -> Tensor:
        """The heat maps of the last stage."""
        for layer in _FEATURES:
            x = F.max_pool2d(x, 2) if layer is None else F.relu(self.get_submodule(layer[0])(x))
        features = x
        heat = self.conv6_2_CPM(F.relu(self.conv6_1_CPM(features)))
        for stage in _STAGES:
            x = torch.cat([heat, features], dim=1)
            for number in range(1, 7):
                x = F.relu(self.get_submodule(f"Mconv{number}_stage{stage}")(x))
            heat = self.get_submodule(f"Mconv7_stage{stage}")(x)
        return heat
