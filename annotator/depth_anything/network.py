"""Depth Anything as transformers' class: sizes and names from the file, positions as the original interpolates them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..renaming import DPT_NAMES, Weights, as_installed, count, renamed, split

PATCH = 14
_LAYERS = {12: [3, 6, 9, 12], 24: [5, 12, 18, 24], 40: [10, 20, 30, 40]}
"""By the number of layers, those that the second version reads; the first reads the last four."""

_NAMES = (
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
_NEWER = (
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.mlp\.weights_out\.", ".mlp.down_proj."),
)
"""transformers 5's names for its own of before."""


def network_of(weights: Weights, *, version: int, metric: bool) -> tuple[nn.Module, Weights]:
    """transformers' network of the sizes of `weights`, which have the publication's names, `weights` renamed."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone: Any = Dinov2Config  # its annotations lack out_features

    width = weights["pretrained.cls_token"].shape[-1]
    layers = count(weights, r"^pretrained\.blocks\.(\d+)\.")
    read = _LAYERS[layers] if version == 2 else list(range(layers - 3, layers + 1))
    config = DepthAnythingConfig(
        backbone_config=backbone(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=max(width // 64, 1),
            use_swiglu_ffn="pretrained.blocks.0.mlp.w12.weight" in weights,
            image_size=round((weights["pretrained.pos_embed"].shape[1] - 1) ** 0.5) * PATCH,
            patch_size=PATCH,
            reshape_hidden_states=False,
            out_features=[f"stage{number}" for number in read],
        ),
        patch_size=PATCH,
        reassemble_hidden_size=width,
        neck_hidden_sizes=[weights[f"depth_head.projects.{n}.weight"].shape[0] for n in range(4)],
        fusion_hidden_size=weights["depth_head.scratch.layer1_rn.weight"].shape[0],
        head_hidden_size=weights["depth_head.scratch.output_conv2.0.weight"].shape[0],
        # the scale cancels out when the map is stretched; only the last function, a sigmoid, is another
        **({"depth_estimation_type": "metric", "max_depth": 20} if metric else {}),
    )
    network: Any = DepthAnythingForDepthEstimation(config)
    embeddings = network.backbone.embeddings
    embeddings.interpolate_pos_encoding = partial(_positions, embeddings)
    parts = split(renamed(weights, _NAMES), "qkv", ("query", "key", "value"))
    if any(".mlp.gate_proj." in name for name in network.state_dict()):
        parts = split(parts, "weights_in", ("gate_proj", "up_proj"))
    return network, as_installed(parts, network, _NEWER)


def _positions(embeddings: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """(1, 1 + rows x columns, C): the learned positions at this size.

    As DINOv2 has it, by a factor that is a tenth of a patch too great: transformers gives the size instead, whose
    samples lie elsewhere, and the depth of an oblong picture would differ by several steps.
    """
    learned: Tensor = embeddings.position_embeddings
    side = math.isqrt(learned.shape[1] - 1)
    rows, columns = height // PATCH, width // PATCH
    if (rows, columns) == (side, side):
        return learned
    grid = learned[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    return torch.cat((learned[:, :1], grid.flatten(2).transpose(1, 2).to(learned.dtype)), dim=1)
