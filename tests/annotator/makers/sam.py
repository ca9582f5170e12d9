"""Segment Anything from controlnet_aux's classes: MobileSAM's encoder in its one size, the rest small.

Random weights are made to answer with several stable masks, some of which the network itself thinks good.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from annotator.sd_controlnet.entries.sam.network import TIMM
from annotator.sd_controlnet.libraries import controlnet_aux

from .segmentation import lively

MODELING = "segment_anything.modeling"


def _whole(encoder: nn.Module, width: int, side: int, seed: int) -> Any:
    transformer = controlnet_aux(f"{MODELING}.transformer").TwoWayTransformer(
        depth=2, embedding_dim=width, num_heads=8, mlp_dim=48, attention_downsample_rate=width // 16
    )
    decoder = controlnet_aux(f"{MODELING}.mask_decoder").MaskDecoder(
        transformer_dim=width, transformer=transformer, iou_head_hidden_dim=24
    )
    prompts = controlnet_aux(f"{MODELING}.prompt_encoder").PromptEncoder(
        embed_dim=width,
        image_embedding_size=(side // 16, side // 16),
        input_image_size=(side, side),
        mask_in_chans=16,
    )
    controlnet_aux(f"{MODELING}.tiny_vit_sam", instead=TIMM)  # the next imports it
    sam = lively(controlnet_aux(f"{MODELING}.sam").Sam(encoder, prompts, decoder), seed)
    state = sam.state_dict()
    for number in range(4):  # logits far from the threshold are stable
        state[f"mask_decoder.output_hypernetworks_mlps.{number}.layers.2.weight"].mul_(200)
        state[f"mask_decoder.output_hypernetworks_mlps.{number}.layers.2.bias"].mul_(200)
    state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].div_(4)  # blots instead of grain
    sam.eval()
    # the qualities lie about the least that is good enough, and differ from point to point
    state["mask_decoder.iou_prediction_head.layers.2.weight"].mul_(8)
    state["mask_decoder.iou_prediction_head.layers.2.bias"].add_(0.88 - _qualities(sam, width, side).mean())
    return sam


def _qualities(sam: Any, width: int, side: int) -> torch.Tensor:
    points = torch.linspace(0, side, 12).view(6, 1, 2)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder((points, torch.ones(6, 1)), None, None)
        embedding = torch.zeros(1, width, side // 16, side // 16)
        return sam.mask_decoder(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, True)[1]


def mobile() -> Any:
    torch.manual_seed(0)
    encoder = controlnet_aux(f"{MODELING}.tiny_vit_sam", instead=TIMM).TinyViT(
        img_size=1024,
        num_classes=7,
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    return _whole(encoder, 256, 1024, 0)


def vit() -> Any:
    encoder = controlnet_aux(f"{MODELING}.image_encoder").ImageEncoderViT(
        img_size=128,
        embed_dim=32,
        depth=3,
        num_heads=4,
        out_chans=32,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=7,
        global_attn_indexes=(1, 2),
    )
    return _whole(encoder, 32, 128, 1)


MAKERS = {
    "mobile_sam.pt": lambda file: torch.save(mobile().state_dict(), file),
    "sam_vit_b_01ec64.pth": lambda file: torch.save(vit().state_dict(), file),
}
