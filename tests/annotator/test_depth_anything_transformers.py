"""Our Depth Anything against transformers' class, filled with the same random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from annotator.sd_controlnet.entries.depth_anything.network import network_of
from annotator.sd_controlnet.networks import fill
from annotator.sd_controlnet.renaming import DPT_NAMES, as_installed, renamed, split

from .makers.depth import depth_anything

NAMES = (
    (r"^depth_head\.projects\.(\d)\.", r"neck.reassemble_stage.layers.\1.projection."),
    (r"^depth_head\.resize_layers\.(\d)\.", r"neck.reassemble_stage.layers.\1.resize."),
    (r"^depth_head\.scratch\.output_conv1\.", "head.conv1."),
    (r"^depth_head\.scratch\.output_conv2\.0\.", "head.conv2."),
    (r"^depth_head\.scratch\.output_conv2\.2\.", "head.conv3."),
    (r"^depth_head\.scratch\.", "scratch."),
    *DPT_NAMES,
    (r"^pretrained\.(cls_token|mask_token)$", r"backbone.embeddings.\1"),
    (r"^pretrained\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^pretrained\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^pretrained\.norm\.", "backbone.layernorm."),
    (r"^pretrained\.blocks\.", "backbone.encoder.layer."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1"),
    (r"\.mlp\.w12\.", ".mlp.weights_in."),
    (r"\.mlp\.w3\.", ".mlp.weights_out."),
)
NEWER = (
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
)


def theirs(weights: dict[str, Tensor], read: list[int], *, gated: bool, metric: bool) -> Any:
    backbone: Any = Dinov2Config
    config = DepthAnythingConfig(
        backbone_config=backbone(
            hidden_size=64,
            num_hidden_layers=12,
            num_attention_heads=1,
            use_swiglu_ffn=gated,
            image_size=37 * 14,
            patch_size=14,
            reshape_hidden_states=False,
            out_features=[f"stage{number}" for number in read],
        ),
        patch_size=14,
        reassemble_hidden_size=64,
        neck_hidden_sizes=[8, 16, 24, 24],
        fusion_hidden_size=16,
        head_hidden_size=32,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=1,
    )
    network: Any = DepthAnythingForDepthEstimation(config).eval()
    parts = split(renamed(weights, NAMES), "qkv", ("query", "key", "value"))
    if any(".mlp.gate_proj." in name for name in network.state_dict()):
        parts = split(parts, "weights_in", ("gate_proj", "up_proj"))
    network.load_state_dict(as_installed(parts, network, NEWER))
    return network


def positions(learned: Tensor, _tokens: Tensor, height: int, width: int) -> Tensor:
    """Depth Anything's own, by DINOv2's factor; transformers gives the size instead, and so other maps."""
    grid = learned[:, 1:].unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    factors = ((height // 14 + 0.1) / 37, (width // 14 + 0.1) / 37)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return torch.cat((learned[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)


def ours(weights: dict[str, Tensor], version: int, *, metric: bool) -> nn.Module:
    network, fitting = network_of(weights, version=version, metric=metric)
    return fill(network.eval(), fitting, Path("random"))


@pytest.mark.parametrize(
    ("version", "read", "gated", "metric", "patches"),
    [
        (1, [9, 10, 11, 12], False, False, (37, 37)),  # the size that the positions were learned at
        (1, [9, 10, 11, 12], False, False, (5, 7)),
        (2, [3, 6, 9, 12], False, False, (9, 4)),
        (2, [3, 6, 9, 12], True, False, (7, 5)),
        (2, [3, 6, 9, 12], False, True, (3, 11)),
    ],
)
def test_the_depth_is_that_of_transformers_class(
    version: int, read: list[int], gated: bool, metric: bool, patches: tuple[int, int]
) -> None:
    weights = depth_anything(swiglu=gated)
    pixels = torch.randn(2, 3, *(14 * count for count in patches), generator=torch.Generator().manual_seed(1))
    reference = theirs(weights, read, gated=gated, metric=metric)
    if patches != (37, 37):
        embeddings = reference.backbone.embeddings
        embeddings.interpolate_pos_encoding = partial(positions, weights["pretrained.pos_embed"])
    with torch.no_grad():
        expected = reference(pixels).predicted_depth
        found = ours(weights, version, metric=metric)(pixels)
    assert found.shape == expected.shape
    assert expected.std() > 0.01, "a constant map would prove nothing"
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
