"""Manga lines with random weights against the network written out as a list of operations.

No package has this network. The names and shapes of the weights, and the operations here, come from one table beside
the makers; the preprocessor's modules have their own.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from annotator.sd_controlnet.registry import discover

from .makers import random_runtime
from .makers.edges import MANGA_STAGES

ENTRY = discover().get("lineart_anime_denoise")


def normed(x: Tensor, weights: dict[str, Tensor], name: str, stride: int = 1, padding: int = 1) -> Tensor:
    w = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
    scale = w["0.weight"] / torch.sqrt(w["0.running_var"] + 1e-3)
    x = x * scale.view(1, -1, 1, 1) + (w["0.bias"] - w["0.running_mean"] * scale).view(1, -1, 1, 1)
    return F.conv2d(torch.where(x > 0, x, 0.2 * x), w["2.weight"], w["2.bias"], stride, padding)


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def written_out(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """(1, 1, H, W) to (1, 1, H, W)."""
    kept: list[Tensor] = []
    for stage, (_, _, blocks, last_stride, grows) in enumerate(MANGA_STAGES):
        for number in range(blocks):
            block = f"block{stage}.model.{number}"
            stride = last_stride if number == blocks - 1 else 1
            y, past = normed(x, weights, f"{block}.conv1.model", stride), x
            if f"{block}.shortcut.model.0.weight" in weights:
                shortcut = f"{block}.shortcut.model.0"
                past = F.conv2d(x, weights[f"{shortcut}.weight"], weights[f"{shortcut}.bias"], stride)
            if grows and number == 0:
                y, past = doubled(y), doubled(past)
            x = normed(y, weights, f"{block}.residual.model") + past
        kept.append(x)
        if 5 <= stage <= 8:
            x = x + kept[8 - stage]
    return normed(x, weights, "conv15.model", padding=0)


def test_the_map_is_that_of_the_operations_written_out(folder: Path) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 2.0)
    runtime = random_runtime(ENTRY.spec, folder)
    weights = torch.load(folder / "manga_line" / "erika.pth", weights_only=True)
    grey = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).float()[None, None]
    expected = (255.0 - written_out(grey, weights)[0, 0].numpy()).clip(0, 255).astype(np.uint8)
    found = ENTRY.load(runtime)(image, resolution=64)
    assert expected.std() > 1, "a constant map would prove nothing"
    assert np.abs(found.astype(int) - expected[:, :, None].astype(int)).max() <= 1
