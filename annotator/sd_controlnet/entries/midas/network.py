"""MiDaS's DPT hybrid as transformers' DPT: sizes and names from the file, and a forward for oblong pictures.

transformers takes the grid of a hybrid for a square (its reassembling stage gets no sizes), so its parts are called
here; they are the same from 4.26 to 5.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ...networks import checked
from ...renaming import DPT_NAMES, Weights, count, renamed, split

_READ_OUT = (8, 11)
"""The transformer's layers that are read, beside the first two stages of the ResNet."""

_NAMES = (
    *DPT_NAMES,
    (r"^pretrained\.model\.patch_embed\.backbone\.stem\.conv\.", "bit.embedder.convolution."),
    (r"^pretrained\.model\.patch_embed\.backbone\.stem\.norm\.", "bit.embedder.norm."),
    (r"^pretrained\.model\.patch_embed\.backbone\.stages\.(\d+)\.blocks\.", r"bit.encoder.stages.\1.layers."),
    (r"^bit\.", "dpt.embeddings.backbone.bit."),
    (r"^pretrained\.model\.patch_embed\.proj\.", "dpt.embeddings.projection."),
    (r"^pretrained\.model\.cls_token$", "dpt.embeddings.cls_token"),
    (r"^pretrained\.model\.pos_embed$", "dpt.embeddings.position_embeddings"),
    (r"^pretrained\.model\.norm\.", "dpt.layernorm."),
    (r"^pretrained\.model\.blocks\.", "dpt.encoder.layer."),
    (r"^(dpt\.encoder\.layer\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(dpt\.encoder\.layer\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.attention."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^scratch\.output_conv\.", "head.head."),
)


def hybrid(weights: Weights) -> tuple[nn.Module, Weights]:
    """transformers' DPT of the sizes of `weights`, which have MiDaS's names, and `weights` under its names."""
    from transformers import BitConfig, DPTConfig, DPTForDepthEstimation

    backbone: Any = BitConfig  # its annotations lack out_features

    width = weights["pretrained.model.cls_token"].shape[-1]
    resnet = "pretrained.model.patch_embed.backbone"
    stages = range(count(weights, r"backbone\.stages\.(\d+)\."))
    last = {stage: f"{resnet}.stages.{stage}.blocks.0.conv3.weight" for stage in stages}
    neck = [weights[f"scratch.layer{number}_rn.weight"].shape for number in (1, 2, 3, 4)]
    config = DPTConfig(
        is_hybrid=True,
        hidden_size=width,
        num_hidden_layers=count(weights, r"^pretrained\.model\.blocks\.(\d+)\."),
        num_attention_heads=max(width // 64, 1),
        intermediate_size=weights["pretrained.model.blocks.0.mlp.fc1.weight"].shape[0],
        layer_norm_eps=1e-6,
        image_size=math.isqrt(weights["pretrained.model.pos_embed"].shape[1] - 1) * 16,
        patch_size=16,
        backbone_out_indices=[0, 1, *_READ_OUT],
        backbone_featmap_shape=[1, weights["pretrained.model.patch_embed.proj.weight"].shape[1], 24, 24],
        neck_hidden_sizes=[shape[1] for shape in neck],
        fusion_hidden_size=neck[0][0],
        reassemble_factors=[1, 1, 1, 0.5],
        readout_type="project",
        backbone_config=backbone(
            embedding_size=weights[f"{resnet}.stem.conv.weight"].shape[0],
            hidden_sizes=[weights[name].shape[0] for name in last.values()],
            depths=[count(weights, rf"backbone\.stages\.{stage}\.blocks\.(\d+)\.") for stage in stages],
            layer_type="bottleneck",
            global_padding="same",
            embedding_dynamic_padding=True,
            out_features=[f"stage{stage + 1}" for stage in stages],
        ),
    )
    # the head of ImageNet's classes is in the file and not in the network
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("pretrained.model.head.")}
    fitting = split(renamed(kept, _NAMES), "qkv", ("query", "key", "value"))
    return DPTForDepthEstimation(config), fitting


def disparity(network: Any, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in -1..1, multiples of 32, to (B, H, W): without a unit, greater is nearer."""
    rows, columns = (size // 16 for size in pixels.shape[-2:])
    pixels = pixels.to(network.dtype)
    embedded = network.dpt.embeddings(pixels, interpolate_pos_encoding=True)
    if isinstance(embedded, tuple):  # before transformers 5, as from the layers below
        hidden, stages = embedded
    else:
        hidden, stages = embedded.last_hidden_states, embedded.intermediate_activations
    features = list(stages)
    stage = network.neck.reassemble_stage
    for number, layer in enumerate(network.dpt.encoder.layer):
        hidden = layer(hidden)
        if isinstance(hidden, tuple):
            hidden = hidden[0]
        if number not in _READ_OUT:
            continue
        place = len(features)
        token, grid = hidden[:, :1], hidden[:, 1:]
        grid = stage.readout_projects[place](torch.cat((grid, token.expand_as(grid)), dim=-1))
        features.append(stage.layers[place](grid.transpose(1, 2).unflatten(2, (rows, columns))))
    features = [convolve(feature) for convolve, feature in zip(network.neck.convs, features, strict=True)]
    return checked(network.head(network.neck.fusion_stage(features))).float()
