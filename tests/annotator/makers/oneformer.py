"""OneFormer, small, from transformers' class, with the names of its authors' detectron2 project."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .segmentation import lively

BACK = (
    (
        r"^model\.pixel_level_module\.encoder\.(swin\.)?embeddings\.patch_embeddings\.projection",
        "backbone.patch_embed.proj",
    ),
    (r"^model\.pixel_level_module\.encoder\.(swin\.)?embeddings\.norm", "backbone.patch_embed.norm"),
    (r"^model\.pixel_level_module\.encoder\.(swin\.)?encoder\.layers", "backbone.layers"),
    (r"^model\.pixel_level_module\.encoder\.hidden_states_norms\.stage", "backbone.norm"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.(relative_position_bias|self)\.relative", "attn.relative"),
    (r"attention\.(o_proj|output\.dense)", "attn.proj"),
    (r"attention\.(self\.)?(query|q_proj)", "attn.q"),
    (r"attention\.(self\.)?(key|k_proj)", "attn.k"),
    (r"attention\.(self\.)?(value|v_proj)", "attn.v"),
    (r"(blocks\.\d+)\.intermediate\.dense", r"\1.mlp.fc1"),
    (r"(blocks\.\d+)\.output\.dense", r"\1.mlp.fc2"),
    (r"^model\.pixel_level_module\.decoder\.level_embed", "sem_seg_head.pixel_decoder.transformer.level_embed"),
    (r"^model\.pixel_level_module\.decoder\.encoder", "sem_seg_head.pixel_decoder.transformer.encoder"),
    (r"(transformer\.encoder\.layers\.\d+)\.fc", r"\1.linear"),
    (r"self_attn_layer_norm", "norm1"),
    (r"final_layer_norm", "norm2"),
    (r"^model\.pixel_level_module\.decoder", "sem_seg_head.pixel_decoder"),
    (r"(adapter_1|layer_1)\.0\.", r"\1."),
    (r"(adapter_1|layer_1)\.1\.", r"\1.norm."),
    (r"input_projections", "input_proj"),
    (r"mask_projection", "mask_features"),
    (r"^model\.transformer_module\.queries_embedder", "sem_seg_head.predictor.query_embed"),
    (r"^model\.transformer_module\.(decoder\.)?", "sem_seg_head.predictor."),
    (r"predictor\.query_input_projection", "predictor.class_input_proj"),
    (r"predictor\.query_transformer", "predictor.class_transformer"),
    (r"(mask_embed\.layers\.\d)\.0", r"\1"),
    (r"predictor\.layers\.(\d+)\.cross_attn", r"predictor.transformer_cross_attention_layers.\1"),
    (r"predictor\.layers\.(\d+)\.self_attn", r"predictor.transformer_self_attention_layers.\1"),
    (r"predictor\.layers\.(\d+)\.ffn", r"predictor.transformer_ffn_layers.\1"),
    (r"self_attn\.([qkv])_proj\.(weight|bias)", r"self_attn.\1.\2"),
    (r"^model\.task_encoder\.task_mlp\.layers\.(\d)\.0", r"task_mlp.layers.\1"),
)


def network(classes: int) -> Any:
    """Answers with several classes on any picture."""
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation, SwinConfig

    stages: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    backbone = SwinConfig(
        image_size=384, embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=4, **stages
    )
    config = OneFormerConfig(
        backbone_config=backbone,
        num_queries=12,
        hidden_dim=64,
        conv_dim=64,
        mask_dim=64,
        encoder_feedforward_dim=80,
        dim_feedforward=96,
        encoder_layers=1,
        decoder_layers=3,
        query_dec_layers=1,
        num_attention_heads=8,
        is_training=False,
    )
    config.num_labels = classes
    made = lively(OneFormerForUniversalSegmentation(config), classes)
    state = made.state_dict()
    state["model.transformer_module.queries_embedder.weight"].mul_(20)
    state["model.transformer_module.decoder.class_embed.weight"].mul_(12)
    state["model.pixel_level_module.decoder.mask_projection.weight"].mul_(6)
    return made.eval()


def back(name: str) -> str:
    for pattern, old in BACK:
        name = re.sub(pattern, old, name)
    return re.sub(r"^backbone\.norm(\d)", lambda match: f"backbone.norm{int(match[1]) - 1}", name)


def stack(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of one attention as one tensor, in the two ways of Swin and of torch."""
    stacked: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = re.match(r"(.*\.(?:attn|self_attn))\.([qkv])\.(weight|bias)$", name)
        if not match:
            stacked[name] = value
        elif match[2] == "q":
            three = torch.cat([weights[f"{match[1]}.{part}.{match[3]}"] for part in "qkv"])
            joined = "qkv." if match[1].endswith(".attn") else "in_proj_"
            stacked[f"{match[1]}.{joined}{match[3]}"] = three
    return stacked


def writer(classes: int) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        kept = {
            back(name): value
            for name, value in network(classes).state_dict().items()
            if not re.search(r"^criterion|encoder\.(swin\.)?layernorm\.|relative_position_index", name)
        }
        # for training only, or following from sizes, in the true files
        extra = {"criterion.empty_weight": torch.ones(classes + 1), "text_encoder.positional_embedding": torch.ones(2)}
        torch.save({"model": {**stack(kept), **extra}, "iteration": 1}, file)

    return write


MAKERS = {
    "250_16_swin_l_oneformer_ade20k_160k.pth": writer(150),
    "150_16_swin_l_oneformer_coco_100ep.pth": writer(133),
}
