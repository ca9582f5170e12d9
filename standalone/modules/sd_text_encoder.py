"""transformers' CLIP text model from the weights of an LDM checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from modules.sd_autoencoder import part
from modules.sd_clip import ClipEmbedder
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

PREFIX = "cond_stage_model.transformer."
TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo" / "clip"


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """CLIP's BPE tokenizer; its vocabulary is part of the repository."""
    # prompts may be of any length here: they are cut into chunks afterwards
    return CLIPTokenizer.from_pretrained(str(TOKENIZER), local_files_only=True, model_max_length=10**9)


def _own_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys without "text_model." in front, so that all generations of transformers can be served."""
    weights = {k.removeprefix("text_model."): v for k, v in part(state_dict, PREFIX).items()}
    if "embeddings.token_embedding.weight" not in weights:
        found = "an SD2 or SDXL checkpoint" if any("model.transformer" in k for k in state_dict) else "none"
        raise ValueError(f"no SD1.x text encoder in this checkpoint (found: {found}); this host loads SD 1.x files")
    unused = ("embeddings.position_ids", "text_projection.weight", "logit_scale")
    return {k: v for k, v in weights.items() if k not in unused and not k.startswith("vision_model.")}


def config_from(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """CLIPTextConfig's arguments from the shapes; heads have 64 channels, as in every CLIP text model."""
    vocabulary, width = weights["embeddings.token_embedding.weight"].shape
    layers = [int(m.group(1)) for k in weights if (m := re.match(r"encoder\.layers\.(\d+)\.", k))]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": max(layers) + 1,
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": weights["embeddings.position_embedding.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "projection_dim": width,
    }


def config_key(state_dict: Mapping[str, Tensor]) -> tuple[Any, ...]:
    return tuple(sorted(config_from(_own_weights(state_dict)).items()))


def _for_model(model: CLIPTextModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "text_model." if hasattr(model, "text_model") else ""
    return {prefix + k: v for k, v in weights.items()}


def build(state_dict: Mapping[str, Tensor]) -> ClipEmbedder:
    weights = _own_weights(state_dict)
    config = config_from(weights)
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**config))
    model.load_state_dict(_for_model(model, weights), strict=False, assign=True)
    positions = torch.arange(config["max_position_embeddings"])[None]
    getattr(model, "text_model", model).embeddings.register_buffer("position_ids", positions, persistent=False)
    missing = [k for k, v in model.state_dict().items() if v.is_meta]
    if missing:
        raise ValueError(f"the checkpoint's text encoder lacks {', '.join(missing[:5])}")
    return ClipEmbedder(model.eval(), tokenizer())


def reload(embedder: ClipEmbedder, state_dict: Mapping[str, Tensor]) -> None:
    """Other weights into the same modules."""
    model: Any = embedder.transformer
    model.load_state_dict(_for_model(model, _own_weights(state_dict)), strict=False)
