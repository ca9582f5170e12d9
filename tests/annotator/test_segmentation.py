"""UniFormer and the anime faces' U-Net with random weights, against their formulas computed from the files' names.

Both were also run by hand against sd-webui-controlnet's own code at their real sizes: the same classes, but for one
pixel of 24576 of UniFormer's, where two were equal.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

from annotator.sd_controlnet.palettes import ADE20K, COCO
from annotator.sd_controlnet.registry import discover

from .makers import random_runtime

REGISTRY = discover()
Weights = dict[str, Tensor]


def picture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4.0).astype(np.float32)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def colours(image: np.ndarray) -> int:
    return len(np.unique(image.reshape(-1, 3), axis=0))


def different(found: np.ndarray, expected: np.ndarray) -> float:
    """The part of the pixels that differ: where two classes are equal but for the last bits, either may win."""
    return float((found != expected).any(axis=2).mean())


def test_the_palettes_are_those_of_the_datasets() -> None:
    assert ADE20K.shape == (150, 3)
    assert COCO.shape == (133, 3)
    assert ADE20K[[0, 2, 12]].tolist() == [[120, 120, 120], [6, 230, 230], [150, 5, 61]]  # wall, sky, person
    assert COCO[[0, 2]].tolist() == [[220, 20, 60], [0, 0, 142]]  # person, car
    assert len(np.unique(ADE20K, axis=0)) == 149  # road and skyscraper share theirs, in the original too
    assert len(np.unique(COCO, axis=0)) == 133


def convolve(weights: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), **options)


def batch_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.layer_norm(x.permute(0, 2, 3, 1), scale.shape, scale, shift, eps).permute(0, 3, 1, 2)


def local(weights: Weights, block: str, x: Tensor) -> Tensor:
    width = x.shape[1]
    x = x + convolve(weights, f"{block}.pos_embed", x, padding=1, groups=width)
    y = convolve(weights, f"{block}.conv1", batch_norm(weights, f"{block}.norm1", x))
    x = x + convolve(weights, f"{block}.conv2", convolve(weights, f"{block}.attn", y, padding=2, groups=width))
    y = F.gelu(convolve(weights, f"{block}.mlp.fc1", batch_norm(weights, f"{block}.norm2", x)))
    return x + convolve(weights, f"{block}.mlp.fc2", y)


def everywhere(weights: Weights, block: str, x: Tensor) -> Tensor:
    """Attention with heads of 64 channels; a linear layer is a 1x1 convolution here."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{block}.{name}.weight"][:, :, None, None], weights[f"{block}.{name}.bias"])

    x = x + convolve(weights, f"{block}.pos_embed", x, padding=1, groups=x.shape[1])
    q, k, v = linear("attn.qkv", layer_norm(weights, f"{block}.norm1", x, 1e-6)).flatten(2).chunk(3, dim=1)
    heads = []
    for q1, k1, v1 in zip(q.split(64, 1), k.split(64, 1), v.split(64, 1), strict=True):
        seen = torch.softmax(q1.transpose(1, 2) @ k1 / 8.0, dim=2)
        heads.append(v1 @ seen.transpose(1, 2))
    x = x + linear("attn.proj", torch.cat(heads, dim=1).view_as(x))
    return x + linear("mlp.fc2", F.gelu(linear("mlp.fc1", layer_norm(weights, f"{block}.norm2", x, 1e-6))))


def uniformer(weights: Weights, x: Tensor) -> list[Tensor]:
    maps = []
    for stage, (patch, depth) in enumerate(zip((4, 2, 2, 2), (1, 2, 2, 1), strict=True), start=1):
        x = convolve(weights, f"backbone.patch_embed{stage}.proj", x, stride=patch)
        x = layer_norm(weights, f"backbone.patch_embed{stage}.norm", x, 1e-5)
        for index in range(depth):
            block = local if stage < 3 else everywhere
            x = block(weights, f"backbone.blocks{stage}.{index}", x)
        maps.append(layer_norm(weights, f"backbone.norm{stage}", x, 1e-6))
    return maps


def head(weights: Weights, maps: list[Tensor]) -> Tensor:
    config = UperNetConfig(hidden_size=16)
    config.num_labels = 150
    network = UperNetHead(config, [x.shape[1] for x in maps]).eval()
    own = {
        name: weights["decode_head." + name.replace("batch_norm", "bn").replace("classifier", "conv_seg")]
        for name in network.state_dict()
    }
    network.load_state_dict(own)
    return network(maps)


def test_uniformer_is_its_formula(tmp_path: Path) -> None:
    entry, image = REGISTRY.get("seg_ufade20k"), picture(96, 128)
    runtime = random_runtime(entry.spec, tmp_path)
    weights = torch.load(tmp_path / "uniformer/upernet_global_small.pth", weights_only=True)["state_dict"]
    padded = np.pad(image, ((0, 32), (0, 0), (0, 0)), mode="edge")
    seen = cv2.resize(padded, (512, 512), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    # blue first, with the mean and deviation of red first
    seen = (seen[:, :, ::-1] - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    with torch.no_grad():
        logits = head(weights, uniformer(weights, torch.from_numpy(seen).float().permute(2, 0, 1)[None]))
    logits = F.interpolate(logits, (512, 512), mode="bilinear")
    logits = F.interpolate(logits, (128, 128), mode="bilinear")
    expected = ADE20K[torch.softmax(logits, dim=1)[0].argmax(dim=0).numpy()][:96]

    found = entry.load(runtime)(image, resolution=96)
    assert colours(expected) > 3, "a constant map would prove nothing"
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape
    assert different(found, expected) < 0.001


def bottleneck(weights: Weights, name: str, x: Tensor, stride: int, adds: bool) -> Tensor:
    """MobileNetV2's, as torchvision numbers its layers: a first one without widening has two convolutions."""

    def step(part: str, x: Tensor, **options: int) -> Tensor:
        return batch_norm(weights, f"{name}.conv.{part}.1", convolve(weights, f"{name}.conv.{part}.0", x, **options))

    widens = f"{name}.conv.2.weight" in weights and weights[f"{name}.conv.2.weight"].ndim == 4
    y = step("0", x).clamp(0, 6) if widens else x
    y = step("1" if widens else "0", y, stride=stride, padding=1, groups=y.shape[1]).clamp(0, 6)
    last = 2 if widens else 1
    y = batch_norm(weights, f"{name}.conv.{last + 1}", convolve(weights, f"{name}.conv.{last}", y))
    return x + y if adds else y


def u_net(weights: Weights, x: Tensor) -> Tensor:
    first = convolve(weights, "en_block0.0.0", x, stride=2, padding=1)
    x = batch_norm(weights, "en_block0.0.1", first).clamp(0, 6)
    x = bottleneck(weights, "en_block0.1", x, 1, False)
    kept = [x]
    for block, strides, widens in (
        (1, (2, 1), (0,)),
        (2, (2, 1, 1), (0,)),
        (3, (2, 1, 1, 1, 1, 1, 1), (0, 4)),
        (4, (2, 1, 1), (0,)),
    ):
        for index, stride in enumerate(strides):
            x = bottleneck(weights, f"en_block{block}.{index}", x, stride, index not in widens)
        kept.append(x)
    for block in (4, 3, 2, 1):
        x = convolve(weights, f"de_block{block}.1", x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        x = (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(x.var((2, 3), keepdim=True, correction=0) + 1e-5)
        x = torch.cat((F.leaky_relu(x, 0.1), kept[block - 1]), dim=1)
    return convolve(weights, "de_block0.1", x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)


def test_anime_faces_are_the_formula(tmp_path: Path) -> None:
    entry, image = REGISTRY.get("seg_anime_face"), picture(128, 160)
    runtime = random_runtime(entry.spec, tmp_path)
    stored = torch.load(tmp_path / "anime_face_segment/UNet.pth", weights_only=True)
    padded = np.pad(image, ((0, 0), (0, 32), (0, 0)), mode="edge")
    with torch.no_grad():
        weights = {name.removeprefix("module."): value for name, value in stored.items()}
        classes = u_net(weights, torch.from_numpy(padded).permute(2, 0, 1)[None] / 255.0)[0].argmax(dim=0).numpy()
    lut = [[255, 255, 0], [0, 0, 255], [255, 0, 0], [255, 255, 255], [0, 255, 0], [0, 255, 255], [255, 0, 255]]
    expected = np.array(lut, np.uint8)[classes][:, :160]
    found = entry.load(runtime)(image, resolution=128)
    assert colours(expected) > 3, "a constant map would prove nothing"
    assert isinstance(found, np.ndarray)
    assert different(found, expected) < 0.001
