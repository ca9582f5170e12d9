"""A small EVA02-CLIP: the tensors of PuLID's `eva_clip`, whose classes need timm and einops, written down."""

from __future__ import annotations

from pathlib import Path

import torch

from .depth import Tensors

WIDTH, LAYERS, SIDE, PATCH, EMBEDDING = 128, 22, 6, 7, 768
INNER = int(WIDTH * 2.6667)


def eva() -> Tensors:
    tensors, model = Tensors(5), "visual"
    tensors.draw(f"{model}.cls_token", 1, 1, WIDTH)
    tensors.draw(f"{model}.pos_embed", 1, 1 + SIDE * SIDE, WIDTH)
    tensors.layer(f"{model}.patch_embed.proj", WIDTH, 3, PATCH, PATCH)
    tensors.draw(f"{model}.rope.freqs_cos", SIDE * SIDE, 64)
    tensors.draw(f"{model}.rope.freqs_sin", SIDE * SIDE, 64)
    for number in range(LAYERS):
        name = f"{model}.blocks.{number}"
        tensors.norm(f"{name}.norm1", WIDTH)
        tensors.norm(f"{name}.norm2", WIDTH)
        tensors.norm(f"{name}.attn.inner_attn_ln", WIDTH)
        tensors.draw(f"{name}.attn.rope.freqs_cos", SIDE * SIDE, 64)
        tensors.draw(f"{name}.attn.rope.freqs_sin", SIDE * SIDE, 64)
        for part in "qkv":
            tensors.layer(f"{name}.attn.{part}_proj", WIDTH, WIDTH, bias=False)
        for part in "qv":
            tensors.draw(f"{name}.attn.{part}_bias", WIDTH, spread=0.1)
        tensors.layer(f"{name}.attn.proj", WIDTH, WIDTH)
        tensors.layer(f"{name}.mlp.w1", INNER, WIDTH)
        tensors.layer(f"{name}.mlp.w2", INNER, WIDTH)
        tensors.norm(f"{name}.mlp.ffn_ln", INNER)
        tensors.layer(f"{name}.mlp.w3", WIDTH, INNER)
    tensors.norm(f"{model}.norm", WIDTH)
    tensors.layer(f"{model}.head", EMBEDDING, WIDTH)
    tensors.draw("text.token_embedding.weight", 10, 8)
    tensors["logit_scale"] = torch.tensor(4.6)
    return tensors


def _written(file: Path) -> None:
    torch.save(dict(eva()), file)


MAKERS = {"EVA02_CLIP_L_336_psz14_s6B.pt": _written}
