"""ZoeDepth as transformers' class, of a file with the publication's names."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from annotator.sd_controlnet.renaming import DPT_NAMES, Weights, as_installed, count, renamed, split

_BLOCKS = r"^core\.core\.pretrained\.model\.blocks\.(\d+)\."
_NAMES = (
    (r"^core\.core\.", ""),
    *DPT_NAMES,
    (r"^conv2\.", "metric_head.conv2."),
    (
        r"^(seed_bin_regressor|seed_projector|projectors|attractors|conditional_log_binomial)\.",
        r"metric_head.\1.",
    ),
    (r"\._net\.0\.", ".conv1."),
    (r"\._net\.2\.", ".conv2."),
    (r"^scratch\.output_conv\.0\.", "relative_head.conv1."),
    (r"^scratch\.output_conv\.2\.", "relative_head.conv2."),
    (r"^scratch\.output_conv\.4\.", "relative_head.conv3."),
    (r"^pretrained\.model\.cls_token$", "backbone.embeddings.cls_token"),
    (r"^pretrained\.model\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^pretrained\.model\.blocks\.", "backbone.encoder.layer."),
    (r"\.gamma_(\d)$", r".lambda_\1"),
    (r"^(backbone\.encoder\.layer\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"^(backbone\.encoder\.layer\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.q_bias$", ".attention.attention.query.bias"),
    (r"\.attn\.v_bias$", ".attention.attention.value.bias"),
    (
        r"\.attn\.relative_position_bias_table$",
        ".attention.attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.attn\.", ".attention.attention."),
)
_NEWER = (
    (r"^backbone\.embeddings\.", "backbone.beit.embeddings."),
    (r"^backbone\.encoder\.layer\.", "backbone.beit.layers."),
    (r"\.attention\.attention\.relative_position_bias\.", ".relative_position_bias."),
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""transformers 5's names for its own of before."""


def theirs(weights: Weights) -> nn.Module:
    """Of the sizes of `weights`, and filled with them: without what a file has beside the network's."""
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation

    backbone: Any = BeitConfig  # its annotations lack out_features

    first = "core.core.pretrained.model.blocks.0"
    width = weights["core.core.pretrained.model.cls_token"].shape[-1]
    layers = count(weights, _BLOCKS)
    table = weights[f"{first}.attn.relative_position_bias_table"]
    neck = [weights[f"core.core.scratch.layer{number}_rn.weight"].shape for number in (1, 2, 3, 4)]
    config = ZoeDepthConfig(
        backbone_config=backbone(
            # of a table of (2 side - 1)^2 + 3 offsets
            image_size=(math.isqrt(table.shape[0] - 3) + 1) // 2 * 16,
            num_hidden_layers=layers,
            hidden_size=width,
            intermediate_size=weights[f"{first}.mlp.fc1.weight"].shape[0],
            num_attention_heads=table.shape[1],
            layer_norm_eps=1e-6,
            use_relative_position_bias=True,
            reshape_hidden_states=False,
            out_features=[f"stage{layers * part // 4}" for part in (1, 2, 3, 4)],
        ),
        neck_hidden_sizes=[shape[1] for shape in neck],
        fusion_hidden_size=neck[0][0],
        bottleneck_features=weights["conv2.weight"].shape[0],
        num_relative_features=weights["core.core.scratch.output_conv.2.weight"].shape[0],
        bin_embedding_dim=weights["seed_projector._net.2.weight"].shape[0],
        bin_centers_type="softplus",
        num_attractors=[weights[f"attractors.{number}._net.2.weight"].shape[0] for number in range(4)],
        bin_configurations=[
            {"n_bins": weights["seed_bin_regressor._net.2.weight"].shape[0], "min_depth": 1e-3, "max_depth": 10.0}
        ],
    )
    network = ZoeDepthForDepthEstimation(config)
    parts = split(renamed(weights, _NAMES), "qkv", ("query", "key", "value"))
    network.load_state_dict(as_installed(parts, network, _NEWER))
    return network.eval()
