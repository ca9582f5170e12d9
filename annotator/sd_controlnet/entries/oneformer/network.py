"""transformers' OneFormer from the files that its authors' detectron2 project wrote."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import Any

from torch import nn

from ...renaming import Table, Weights, as_installed, count, renamed, split

HEADS = 8
_ALL_STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
_PIXELS = "model.pixel_level_module"
_QUERIES = "model.transformer_module"

NAMES: Table = (
    (r"^backbone\.patch_embed\.proj\.", f"{_PIXELS}.encoder.embeddings.patch_embeddings.projection."),
    (r"^backbone\.patch_embed\.norm\.", f"{_PIXELS}.encoder.embeddings.norm."),
    *((rf"^backbone\.norm{n}\.", f"{_PIXELS}.encoder.hidden_states_norms.stage{n + 1}.") for n in range(4)),
    (r"^backbone\.layers\.", f"{_PIXELS}.encoder.encoder.layers."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.layernorm_before."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.layernorm_after."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(blocks\.\d+)\.attn\.", r"\1.attention.self."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^sem_seg_head\.pixel_decoder\.(transformer\.)?", f"{_PIXELS}.decoder."),
    (r"decoder\.(adapter_1|layer_1)\.(weight)", r"decoder.\1.0.\2"),
    (r"decoder\.(adapter_1|layer_1)\.norm\.", r"decoder.\1.1."),
    (r"decoder\.input_proj\.", "decoder.input_projections."),
    (r"decoder\.mask_features\.", "decoder.mask_projection."),
    (r"(pixel_level_module\.decoder\.encoder\.layers\.\d+)\.linear(\d)\.", r"\1.fc\2."),
    (r"(pixel_level_module\.decoder\.encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(pixel_level_module\.decoder\.encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"^sem_seg_head\.predictor\.query_embed\.", f"{_QUERIES}.queries_embedder."),
    (r"^sem_seg_head\.predictor\.level_embed\.", f"{_QUERIES}.level_embed."),
    (r"^sem_seg_head\.predictor\.", f"{_QUERIES}.decoder."),
    (r"\.class_input_proj\.", ".query_input_projection."),
    (r"\.mask_embed\.layers\.(\d)\.", r".mask_embed.layers.\1.0."),
    (r"\.class_transformer\.", ".query_transformer."),
    (r"\.transformer_cross_attention_layers\.(\d+)\.", r".layers.\1.cross_attn."),
    (r"\.transformer_self_attention_layers\.(\d+)\.", r".layers.\1.self_attn."),
    (r"\.transformer_ffn_layers\.(\d+)\.", r".layers.\1.ffn."),
    (r"(\.self_attn\.self_attn)\.in_proj_(weight|bias)", r"\1.in_proj.\2"),
    (r"^task_mlp\.layers\.(\d)\.", r"model.task_encoder.task_mlp.layers.\1.0."),
)
"""To the names of transformers 4."""

NEWER: Table = (
    (r"^(model\.pixel_level_module\.encoder)\.(embeddings|encoder)\.", r"\1.swin.\2."),
    (r"\.attention\.self\.query\.", ".attention.q_proj."),
    (r"\.attention\.self\.key\.", ".attention.k_proj."),
    (r"\.attention\.self\.value\.", ".attention.v_proj."),
    (r"\.attention\.self\.relative", ".attention.relative_position_bias.relative"),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
"""From those to the names of transformers 5."""

_TRAINING_ONLY = re.compile(r"^(text_encoder|text_projector|prompt_ctx|criterion)\.|relative_position_index$")
_NOT_IN_THE_FILE = re.compile(r"^criterion\.|\.encoder\.(swin\.)?layernorm\.|relative_position_index$")
"""Of transformers' class alone: the loss, a norm that nothing passes through, and numbers that follow from sizes."""


def build(weights: Weights) -> tuple[Any, Weights]:
    """An empty network of the sizes of these weights, and the weights under its names. KeyError: another network's."""
    from transformers import OneFormerForUniversalSegmentation

    network = OneFormerForUniversalSegmentation(_config(weights))
    for module in network.modules():
        _without_memory(module)
    kept = {name: value for name, value in weights.items() if not _TRAINING_ONLY.search(name)}
    kept = renamed(split(kept, "qkv", ("query", "key", "value")), NAMES)
    kept = as_installed(split(kept, "in_proj", ("q_proj", "k_proj", "v_proj")), network, NEWER)
    for name, value in network.state_dict().items():
        if _NOT_IN_THE_FILE.search(name):
            kept.setdefault(name, value)
    return network, kept


def _without_memory(module: nn.Module) -> None:
    """Let it compute its positions at every call: what transformers remembers of the last would stay on the device."""
    for name in ("forward", "build_sine_position_embedding"):
        found = inspect.getattr_static(module, name, None)
        plain = getattr(getattr(found, "__func__", found), "__wrapped__", None)
        if "PositionEmbedding" in type(module).__name__ and plain is not None:
            setattr(module, name, plain if isinstance(found, staticmethod) else partial(plain, module))


def _config(weights: Weights) -> Any:
    from transformers import OneFormerConfig, SwinConfig

    head = "sem_seg_head"
    depths = [count(weights, rf"^backbone\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(4)]
    tables = [weights[f"backbone.layers.{n}.blocks.0.attn.relative_position_bias_table"].shape for n in range(4)]
    queries = weights[f"{head}.predictor.query_embed.weight"].shape
    backbone = SwinConfig(
        image_size=384,
        embed_dim=weights["backbone.patch_embed.proj.weight"].shape[0],
        depths=depths,
        num_heads=[table[1] for table in tables],
        window_size=(round(tables[0][0] ** 0.5) + 1) // 2,
        **_ALL_STAGES,
    )
    config = OneFormerConfig(
        backbone_config=backbone,
        num_queries=queries[0],
        hidden_dim=queries[1],
        conv_dim=weights[f"{head}.pixel_decoder.input_proj.0.0.weight"].shape[0],
        mask_dim=weights[f"{head}.pixel_decoder.mask_features.weight"].shape[0],
        encoder_feedforward_dim=weights[f"{head}.pixel_decoder.transformer.encoder.layers.0.linear1.weight"].shape[0],
        dim_feedforward=weights[f"{head}.predictor.transformer_ffn_layers.0.linear1.weight"].shape[0],
        encoder_layers=count(weights, r"pixel_decoder\.transformer\.encoder\.layers\.(\d+)\."),
        decoder_layers=count(weights, r"predictor\.transformer_ffn_layers\.(\d+)\.") + 1,  # the last is the output's
        query_dec_layers=count(weights, r"predictor\.class_transformer\.decoder\.layers\.(\d+)\."),
        task_seq_len=weights["task_mlp.layers.0.weight"].shape[1],
        num_attention_heads=HEADS,
        is_training=False,
    )
    config.num_labels = weights[f"{head}.predictor.class_embed.weight"].shape[0] - 1  # the last class is "nothing"
    return config
