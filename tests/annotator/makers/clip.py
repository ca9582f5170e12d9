"""Image encoders of CLIP: small ones, for the file tells the sizes. The widths of the embeddings are the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch


def encoder(projection: int, activation: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        torch.manual_seed(projection)
        config = CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=16,
            projection_dim=projection,
            patch_size=32,
            image_size=224,
            hidden_act=activation,
            initializer_factor=20.0,
        )
        weights = dict(CLIPVisionModelWithProjection(config).state_dict())
        weights["vision_model.embeddings.position_ids"] = torch.arange(50)[None]  # the true files have it
        weights["text_model.embeddings.token_embedding.weight"] = torch.zeros(3, 3)  # the file of ViT-L is a whole CLIP
        torch.save(weights, file)

    return write


MAKERS = {
    "clip_vitl.pth": encoder(768, "quick_gelu"),
    "clip_h.pth": encoder(1024, "gelu"),
    "clip_g.pth": encoder(1280, "gelu"),
}
