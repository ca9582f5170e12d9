"""The few functions of torchvision that the peers' detectors call: what is installed here may not fit this torch."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from annotator.sd_controlnet.libraries import controlnet_aux


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Numbers of the boxes that no better one overlaps by more than the threshold, the best first; written out."""
    order, kept = scores.argsort(descending=True, stable=True), []
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        left_top = torch.maximum(boxes[best, :2], boxes[rest, :2])
        common = (torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - left_top).clamp(min=0).prod(dim=1)
        order = rest[~(common / (areas[best] + areas[rest] - common) > iou_threshold)]
    return torch.tensor(kept, dtype=torch.long)


def batched_nms(boxes: Tensor, scores: Tensor, _groups: Tensor, iou_threshold: float) -> Tensor:
    """For one group."""
    return nms(boxes, scores, iou_threshold)


class LayerGetter(nn.ModuleDict):
    """The layers up to the last that is wanted, and their outputs under the names that are wanted."""

    def __init__(self, network: nn.Module, wanted: dict[str, int]) -> None:
        names = [name for name, _ in network.named_children()]
        last = max(names.index(name) for name in wanted)
        super().__init__({name: getattr(network, name) for name in names[: last + 1]})
        self.wanted = wanted

    def forward(self, pixels: Tensor) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for name, layer in self.items():
            pixels = layer(pixels)
            if name in self.wanted:
                found[self.wanted[name]] = pixels
        return found


def normalize(pixels: Tensor, mean: list[float], std: list[float]) -> Tensor:
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def _resnet50(pretrained: bool) -> nn.Module:
    return controlnet_aux("leres.leres.Resnet").resnet50(pretrained=pretrained)


FUNCTIONS: dict[str, dict[str, Any]] = {
    "torchvision": {},
    "torchvision.ops": {"nms": nms},
    "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": None},
    "torchvision.models": {"resnet50": _resnet50},
    "torchvision.models._utils": {"IntermediateLayerGetter": LayerGetter},
    "torchvision.transforms": {},
    "torchvision.transforms.functional": {
        "normalize": normalize,
        "to_pil_image": Image.fromarray,
        "resize": lambda image, size: image.resize(size[::-1], Image.Resampling.BILINEAR),
    },
}


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends, `torchvision` is this."""
    for name, functions in FUNCTIONS.items():
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, module)
