"""MiDaS's hybrid and Depth Anything written out from their papers' code, over the tensors of their files.

No class of ours or of transformers: functions of torch alone, of any sizes, by the names of the publication.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def convolve(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{name}.weight"]
    return F.conv2d(x, kernel, weights.get(f"{name}.bias"), stride, kernel.shape[-1] // 2)


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def attend(weights: Weights, name: str, x: Tensor) -> Tensor:
    heads = x.shape[-1] // 64
    q, k, v = linear(weights, f"{name}.qkv", x).unflatten(-1, (3, heads, 64)).permute(2, 0, 3, 1, 4)
    mixed = torch.softmax(q @ k.transpose(-1, -2) / 8.0, dim=-1) @ v
    return linear(weights, f"{name}.proj", mixed.transpose(1, 2).flatten(2))


def layers(weights: Weights, prefix: str, x: Tensor) -> list[Tensor]:
    """What each layer of a vision transformer gives, with DINOv2's scales where there are such."""
    found = []
    while f"{prefix}.{len(found)}.norm1.weight" in weights:
        name = f"{prefix}.{len(found)}"
        x = x + attend(weights, f"{name}.attn", layer_norm(weights, f"{name}.norm1", x)) * scale(weights, name, 1)
        inner = layer_norm(weights, f"{name}.norm2", x)
        if f"{name}.mlp.w12.weight" in weights:
            gate, value = linear(weights, f"{name}.mlp.w12", inner).chunk(2, dim=-1)
            outer = linear(weights, f"{name}.mlp.w3", F.silu(gate) * value)
        else:
            outer = linear(weights, f"{name}.mlp.fc2", F.gelu(linear(weights, f"{name}.mlp.fc1", inner)))
        x = x + outer * scale(weights, name, 2)
        found.append(x)
    return found


def scale(weights: Weights, name: str, number: int) -> Tensor | float:
    return weights.get(f"{name}.ls{number}.gamma", 1.0)


def residual(weights: Weights, name: str, x: Tensor) -> Tensor:
    inner = convolve(weights, f"{name}.conv1", F.relu(x))
    return x + convolve(weights, f"{name}.conv2", F.relu(inner))


def fuse(weights: Weights, prefix: str, features: list[Tensor]) -> Tensor:
    """RefineNet over four features, the finest first."""
    return fusions(weights, prefix, features)[-1]


def fusions(weights: Weights, prefix: str, features: list[Tensor]) -> list[Tensor]:
    """The coarsest feature, adapted, and what each of RefineNet's four steps gives."""
    path: Tensor | None = None
    found: list[Tensor] = []
    adapted = [convolve(weights, f"{prefix}layer{n + 1}_rn", feature) for n, feature in enumerate(features)]
    for number in (4, 3, 2, 1):
        name, x = f"{prefix}refinenet{number}", adapted[number - 1]
        x = x if path is None else path + residual(weights, f"{name}.resConfUnit1", x)
        x = residual(weights, f"{name}.resConfUnit2", x)
        # each reaches the size of the next; the last one doubles
        size = adapted[number - 2].shape[-2:] if number > 1 else [2 * side for side in x.shape[-2:]]
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        path = convolve(weights, f"{name}.out_conv", x)
        found.append(path)
    return [adapted[3], *found]


def standardised(weights: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution with standardised kernels and TensorFlow's padding "same"."""
    kernel = weights[f"{name}.weight"]
    mean = kernel.mean(dim=(1, 2, 3), keepdim=True)
    variance = kernel.var(dim=(1, 2, 3), unbiased=False, keepdim=True)
    return F.conv2d(same(x, kernel.shape[-1], stride), (kernel - mean) / torch.sqrt(variance + 1e-8), stride=stride)


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    down, across = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2), value=value)


def group_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"])


def bottleneck(weights: Weights, name: str, x: Tensor, stride: int) -> Tensor:
    shortcut = x
    if f"{name}.downsample.conv.weight" in weights:
        down = standardised(weights, f"{name}.downsample.conv", x, stride)
        shortcut = group_norm(weights, f"{name}.downsample.norm", down)
    x = F.relu(group_norm(weights, f"{name}.norm1", standardised(weights, f"{name}.conv1", x)))
    x = F.relu(group_norm(weights, f"{name}.norm2", standardised(weights, f"{name}.conv2", x, stride)))
    x = group_norm(weights, f"{name}.norm3", standardised(weights, f"{name}.conv3", x))
    return F.relu(x + shortcut)


def resnet(weights: Weights, prefix: str, x: Tensor) -> list[Tensor]:
    """What each stage gives."""
    x = F.relu(group_norm(weights, f"{prefix}.stem.norm", standardised(weights, f"{prefix}.stem.conv", x, 2)))
    x = F.max_pool2d(same(x, 3, 2, -math.inf), 3, 2)
    found = []
    while f"{prefix}.stages.{len(found)}.blocks.0.conv1.weight" in weights:
        block = 0
        while f"{prefix}.stages.{len(found)}.blocks.{block}.conv1.weight" in weights:
            stride = 2 if found and not block else 1
            x = bottleneck(weights, f"{prefix}.stages.{len(found)}.blocks.{block}", x, stride)
            block += 1
        found.append(x)
    return found


def hybrid(weights: Weights, pixels: Tensor) -> Tensor:
    """MiDaS: (1, 3, H, W) in -1..1 to (H, W) disparity."""
    model = "pretrained.model"
    stages = resnet(weights, f"{model}.patch_embed.backbone", pixels)
    tokens = convolve(weights, f"{model}.patch_embed.proj", stages[-1])
    rows, columns = tokens.shape[-2:]
    learned = weights[f"{model}.pos_embed"]
    side = math.isqrt(learned.shape[1] - 1)
    grid = learned[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (rows, columns), mode="bilinear").flatten(2).transpose(1, 2)
    x = torch.cat((weights[f"{model}.cls_token"], tokens.flatten(2).transpose(1, 2)), dim=1)
    outputs = layers(weights, f"{model}.blocks", x + torch.cat((learned[:, :1], grid), dim=1))
    features = stages[:2]
    for number, layer in ((3, 8), (4, 11)):
        name, found = f"pretrained.act_postprocess{number}", outputs[layer]
        both = torch.cat((found[:, 1:], found[:, :1].expand_as(found[:, 1:])), dim=-1)
        read = F.gelu(linear(weights, f"{name}.0.project.0", both)).transpose(1, 2).unflatten(2, (rows, columns))
        features.append(convolve(weights, f"{name}.3", read))
    features[3] = convolve(weights, "pretrained.act_postprocess4.4", features[3], stride=2)
    x = convolve(weights, "scratch.output_conv.0", fuse(weights, "scratch.", features))
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    x = F.relu(convolve(weights, "scratch.output_conv.2", x))
    return F.relu(convolve(weights, "scratch.output_conv.4", x))[0, 0]


def depth_anything(weights: Weights, pixels: Tensor, read: list[int], *, metric: bool = False) -> Tensor:
    """Depth Anything: (1, 3, H, W), normalised as ImageNet, to (H, W) disparity, or metres of 1."""
    kernel = weights["pretrained.patch_embed.proj.weight"]
    tokens = F.conv2d(pixels, kernel, weights["pretrained.patch_embed.proj.bias"], 14)
    rows, columns = tokens.shape[-2:]
    learned = weights["pretrained.pos_embed"]
    side = math.isqrt(learned.shape[1] - 1)
    grid = learned[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if (rows, columns) != (side, side):
        factors = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    x = torch.cat((weights["pretrained.cls_token"], tokens.flatten(2).transpose(1, 2)), dim=1)
    x = x + torch.cat((learned[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
    outputs = layers(weights, "pretrained.blocks", x)
    features = []
    for number, layer in enumerate(read):
        found = layer_norm(weights, "pretrained.norm", outputs[layer])[:, 1:]
        found = found.transpose(1, 2).unflatten(2, (rows, columns))
        features.append(convolve(weights, f"depth_head.projects.{number}", found))
    for number, factor in ((0, 4), (1, 2)):
        name = f"depth_head.resize_layers.{number}"
        features[number] = F.conv_transpose2d(
            features[number], weights[f"{name}.weight"], weights[f"{name}.bias"], factor
        )
    features[3] = convolve(weights, "depth_head.resize_layers.3", features[3], stride=2)
    x = convolve(weights, "depth_head.scratch.output_conv1", fuse(weights, "depth_head.scratch.", features))
    x = F.interpolate(x, (rows * 14, columns * 14), mode="bilinear", align_corners=True)
    x = F.relu(convolve(weights, "depth_head.scratch.output_conv2.0", x))
    x = convolve(weights, "depth_head.scratch.output_conv2.2", x)[0, 0]
    return torch.sigmoid(x) if metric else F.relu(x)
