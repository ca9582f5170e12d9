"""ZoeDepth with random weights against the network and its inference written out from its authors' code."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from annotator.sd_controlnet.entries.zoe.detector import network_size
from annotator.sd_controlnet.entries.zoe.network import zoe
from annotator.sd_controlnet.networks import fill, read_weights
from annotator.sd_controlnet.registry import discover

from .dense_reference import Weights, convolve, fusions, layer_norm, linear
from .makers import depth as makers
from .makers import random_runtime
from .zoe_transformers import theirs

ENTRY = discover().get("depth_zoe")
CORE = "core.core."


def larger(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def offsets(table: Tensor, rows: int, columns: int) -> Tensor:
    """(heads, 1 + rows x columns, the same): the bias of each pair of tokens, by how far they lie apart."""
    side = round((table.shape[0] - 3) ** 0.5)
    grid = table[:-3].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (2 * rows - 1, 2 * columns - 1), mode="bilinear")[0]
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    bias = grid.new_zeros(grid.shape[0], 1 + rows * columns, 1 + rows * columns)
    bias[:, 1:, 1:] = grid[:, y[:, None] - y + rows - 1, x[:, None] - x + columns - 1]
    bias[:, 0, :], bias[:, :, 0] = table[-3][:, None], table[-2][:, None]
    bias[:, 0, 0] = table[-1]
    return bias


def backbone(weights: Weights, pixels: Tensor) -> list[Tensor]:
    """BEiT's layers 3, 6, 9 and 12 of 12."""
    model = f"{CORE}pretrained.model"
    patches = F.conv2d(
        pixels, weights[f"{model}.patch_embed.proj.weight"], weights[f"{model}.patch_embed.proj.bias"], 16
    )
    rows, columns = patches.shape[-2:]
    x = torch.cat((weights[f"{model}.cls_token"], patches.flatten(2).transpose(1, 2)), dim=1)
    found = []
    for number in range(12):
        name = f"{model}.blocks.{number}"
        bias = weights[f"{name}.attn.q_bias"], torch.zeros(x.shape[-1]), weights[f"{name}.attn.v_bias"]
        inner = F.linear(layer_norm(weights, f"{name}.norm1", x), weights[f"{name}.attn.qkv.weight"], torch.cat(bias))
        q, k, v = inner.unflatten(-1, (3, -1, 64)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / 8.0
        scores = scores + offsets(weights[f"{name}.attn.relative_position_bias_table"], rows, columns)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
        x = x + weights[f"{name}.gamma_1"] * linear(weights, f"{name}.attn.proj", mixed)
        inner = F.gelu(linear(weights, f"{name}.mlp.fc1", layer_norm(weights, f"{name}.norm2", x)))
        x = x + weights[f"{name}.gamma_2"] * linear(weights, f"{name}.mlp.fc2", inner)
        found.append(x)
    features = []
    for number in (1, 2, 3, 4):
        name, x = f"{CORE}pretrained.act_postprocess{number}", found[3 * number - 1]
        both = torch.cat((x[:, 1:], x[:, :1].expand_as(x[:, 1:])), dim=-1)
        read = F.gelu(linear(weights, f"{name}.0.project.0", both)).transpose(1, 2).unflatten(2, (rows, columns))
        read = convolve(weights, f"{name}.3", read)
        if number < 3:
            read = F.conv_transpose2d(read, weights[f"{name}.4.weight"], weights[f"{name}.4.bias"], 8 // 2**number)
        features.append(convolve(weights, f"{name}.4", read, stride=2) if number == 4 else read)
    return features


def two(weights: Weights, name: str, x: Tensor) -> Tensor:
    return convolve(weights, f"{name}._net.2", F.relu(convolve(weights, f"{name}._net.0", x)))


def metres(weights: Weights, pixels: Tensor) -> Tensor:
    """(1, 3, H, W) in -1..1 to (1, 1, h, w), at the size of the head."""
    coarsest, *blocks = fusions(weights, f"{CORE}scratch.", backbone(weights, pixels))
    x = convolve(weights, f"{CORE}scratch.output_conv.0", blocks[-1])
    x = larger(x, tuple(2 * side for side in x.shape[-2:]))
    last = F.relu(convolve(weights, f"{CORE}scratch.output_conv.2", x))
    relative = F.relu(convolve(weights, f"{CORE}scratch.output_conv.4", last))
    start = convolve(weights, "conv2", coarsest)
    centres, embedding = F.softplus(two(weights, "seed_bin_regressor", start)), two(weights, "seed_projector", start)
    for number, block in enumerate(blocks):
        own = two(weights, f"projectors.{number}", block)
        points = F.softplus(two(weights, f"attractors.{number}", own + larger(embedding, own.shape[-2:])))
        centres, embedding = larger(centres, own.shape[-2:]), own
        apart = points[:, :, None] - centres[:, None]
        centres = centres + (apart / (1 + 300 * apart**2)).mean(dim=1)
    size = last.shape[-2:]
    mixed = torch.cat((last, relative, larger(embedding, size)), dim=1)
    mixed = F.gelu(convolve(weights, "conditional_log_binomial.mlp.0", mixed))
    p, not_p, hot, cold = F.softplus(convolve(weights, "conditional_log_binomial.mlp.2", mixed)).add(1e-4).unbind(1)
    chance, heat = (p / (p + not_p))[:, None], (50.0 - 0.0212) * (hot / (hot + cold))[:, None] + 0.0212
    k, n = torch.arange(64.0).view(1, -1, 1, 1) + 1e-7, 63.0 + 1e-7
    choose = n * np.log(n) - k * torch.log(k) - (n - k) * torch.log(n - k + 1e-7)
    k = k.round()
    scores = choose + k * torch.log(chance.clamp(1e-4, 1)) + (63 - k) * torch.log((1 - chance).clamp(1e-4, 1))
    return (torch.softmax(scores / heat, dim=1) * larger(centres, size)).sum(dim=1, keepdim=True)


def test_the_map_is_that_of_its_authors(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).integers(0, 256, (64, 100, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 3.0)
    runtime = random_runtime(ENTRY.spec, tmp_path)
    weights = read_weights(tmp_path / "zoedepth" / "ZoeD_M12_N.pt")
    pixels = np.pad(image, ((0, 0), (0, 28), (0, 0)), mode="edge").astype(np.float32) / 255.0

    def infer(picture: np.ndarray) -> np.ndarray:
        # sqrt(64 / 2) x 3 = 16.97, sqrt(128 / 2) x 3 = 24
        framed = np.pad(picture, ((16, 16), (24, 24), (0, 0)), mode="reflect")
        plane = torch.from_numpy(np.ascontiguousarray(framed.transpose(2, 0, 1)))[None]
        # 96 x 176: x 512 / 176 changes less than x 384 / 96; 279.3 and 512 to multiples of 32
        with torch.no_grad():
            depth = metres(weights, (larger(plane, (288, 512)) - 0.5) / 0.5)
        return F.interpolate(depth, (96, 176), mode="bicubic")[0, 0, 16:-16, 24:-24].numpy()

    depth = (infer(pixels) + infer(pixels[:, ::-1])[:, ::-1]) / 2
    nearest, farthest = np.percentile(depth, 2), np.percentile(depth, 85)
    expected = ((1 - (depth - nearest) / (farthest - nearest)) * 255).clip(0, 255).astype(np.uint8)[:, :100]
    assert expected.std() > 5, "a constant map would prove nothing"
    found = ENTRY.load(runtime)(image, resolution=64)
    assert np.abs(found.astype(int) - expected.astype(int)[:, :, None]).max() <= 1


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (224, 32)])
def test_the_metres_are_those_of_transformers_class(size: tuple[int, int]) -> None:
    weights = dict(makers.zoe())
    pixels = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    network, fitting = zoe(weights)
    with torch.no_grad():
        expected = theirs(fitting)(pixels).predicted_depth[:, None]
        found = fill(network.eval(), fitting, Path("random"))(pixels)
    assert found.shape == expected.shape
    assert expected.std() > 0.01, "a constant map would prove nothing"
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    # x 384/512 or x 512/512: the second changes nothing; x 384/480 = x 512/640; x 384/1024 against x 512/768
    [(512, 512, (512, 512)), (480, 640, (384, 512)), (1024, 768, (672, 512)), (96, 4000, (32, 512))],
)
def test_the_size_that_changes_least_is_taken(height: int, width: int, expected: tuple[int, int]) -> None:
    assert network_size(height, width) == expected
