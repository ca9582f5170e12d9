"""OpenPose from the network's maps to people: ours against controlnet_aux's, which reads the same made-up maps."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotator.sd_controlnet.entries.openpose.body import find_bodies
from annotator.sd_controlnet.libraries import controlnet_aux
from annotator.sd_controlnet.skeletons import LIMBS

from .measure import Goal, Progress, Result, take_turns

GOAL = Goal(most=0.3)
_CELLS = 23
"""Of the network's maps, whatever the picture's size: it sees 184 pixels."""
_JOINTS = (
    (0.5, 0.15), (0.5, 0.26), (0.42, 0.27), (0.38, 0.4), (0.37, 0.53), (0.58, 0.25), (0.62, 0.4), (0.63, 0.54),
    (0.45, 0.52), (0.44, 0.7), (0.43, 0.88), (0.55, 0.53), (0.56, 0.7), (0.57, 0.89), (0.48, 0.13), (0.52, 0.12),
    (0.46, 0.14), (0.54, 0.15),
)  # fmt: skip
"""Of somebody who stands, in parts of the picture."""
_FIELDS = (
    (12, 13), (20, 21), (14, 15), (16, 17), (22, 23), (24, 25), (0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11),
    (28, 29), (30, 31), (34, 35), (32, 33), (36, 37),
)  # fmt: skip
"""The affinity field's two maps of each limb."""
SIZES = (512, 1024)

Maps = NDArray[np.float32]


def openpose_post(size: int, rounds: int, progress: Progress) -> Result:
    """CPU seconds of both for one person in a picture of `size` x `size`, as a ratio."""
    image = np.zeros((size, size, 3), np.uint8)
    fields, heat = _somebody()
    actions = {
        f"controlnet_aux's OpenPose at {size}": partial(_reference(fields, heat), image),
        f"our OpenPose at {size}": partial(find_bodies, image, lambda _shown: (fields, heat)),
    }
    reference, ours = take_turns(actions, rounds, progress).values()
    detail = f"{ours:.3f} s / {reference:.3f} s, without the network"
    return Result(f"openpose_post_{size}", ours / reference, GOAL, detail)


def _somebody() -> tuple[Maps, Maps]:
    """Fields (38, 23, 23) and heat (19, 23, 23) of one person, as a network without faults would give them."""
    rows, columns = np.mgrid[0:_CELLS, 0:_CELLS].astype(np.float32) / _CELLS
    heat = np.zeros((19, _CELLS, _CELLS), np.float32)
    fields = np.zeros((38, _CELLS, _CELLS), np.float32)
    for part, (x, y) in enumerate(_JOINTS):
        heat[part] = 0.9 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.004)
    for (start, end), (across, down) in zip(LIMBS, _FIELDS, strict=True):
        way = np.subtract(_JOINTS[end], _JOINTS[start])
        length = float(np.hypot(*way))
        fields[across], fields[down] = way / length
    return fields, heat


def _reference(fields: Maps, heat: Maps) -> Any:
    controlnet_aux("open_pose.util")  # it and body import each other; this order works
    module = controlnet_aux("open_pose.body")
    made = object.__new__(module.Body)
    made.model = _Answer(fields, heat)
    return made


class _Answer(torch.nn.Module):
    def __init__(self, fields: Maps, heat: Maps) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # where the reference looks for the device
        self.answer = (torch.from_numpy(fields)[None], torch.from_numpy(heat)[None])

    def forward(self, _pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.answer
