"""controlnet_aux's copy of Segment Anything, of the kind and sizes that a file of weights has."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...libraries import controlnet_aux
from ...networks import normalised
from ...renaming import Weights, count
from .attention import in_parts

_MODELING = "segment_anything.modeling"
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_PATCH = 16
_HEADS = 8
_MOBILE_SIDE = 1024
# Of timm, which needs a torchvision that fits this torch, TinyViT's file takes these for training alone; the module
# that is only inherited from is not run either.
TIMM = {
    "timm.models.layers": SimpleNamespace(
        DropPath=nn.Identity, to_2tuple=lambda side: (side, side), trunc_normal_=nn.init.trunc_normal_
    ),
    "timm.models.registry": SimpleNamespace(register_model=lambda function: function),
}


class Network(nn.Module):
    """The three parts under the names of the publication's file. `side`: of the square that the encoder sees."""

    def __init__(self, encoder: nn.Module, prompts: nn.Module, decoder: nn.Module, side: int) -> None:
        super().__init__()
        self.image_encoder: Any = encoder
        self.prompt_encoder: Any = prompts
        self.mask_decoder: Any = decoder
        self.side = side

    def embed(self, pixels: Tensor) -> Tensor:
        """(1, 3, h, w) 0..255, the longer of h and w being `side`, to (1, C, side/16, side/16)."""
        height, width = pixels.shape[2:]
        padding = (0, self.side - width, 0, self.side - height)
        return self.image_encoder(F.pad(normalised(pixels, _MEAN, _STD), padding))

    def masks(self, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """What each point (N, 2), in pixels of the square, may mean.

        Returns logits (N, 3, side/4, side/4) and the network's own estimate of their quality (N, 3).
        """
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        sparse, dense = self.prompt_encoder(points=(points[:, None], labels), boxes=None, masks=None)
        return self.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )


def build(weights: Weights) -> tuple[Network, Weights]:
    """An empty network of the sizes of these weights, and the weights. KeyError: another network's."""
    encoder, side = _vit(weights) if "image_encoder.pos_embed" in weights else _tiny_vit(weights)
    grid = side // _PATCH
    prompts = controlnet_aux(f"{_MODELING}.prompt_encoder").PromptEncoder(
        embed_dim=weights["prompt_encoder.no_mask_embed.weight"].shape[1],
        image_embedding_size=(grid, grid),
        input_image_size=(side, side),
        mask_in_chans=weights["prompt_encoder.mask_downscaling.3.weight"].shape[0],
    )
    return Network(encoder, prompts, _decoder(weights), side), weights


def _decoder(weights: Weights) -> nn.Module:
    decoder = "mask_decoder"
    answers, width = weights[f"{decoder}.mask_tokens.weight"].shape
    layer = f"{decoder}.transformer.layers.0"
    transformer = controlnet_aux(f"{_MODELING}.transformer").TwoWayTransformer(
        depth=count(weights, rf"^{decoder}\.transformer\.layers\.(\d+)\."),
        embedding_dim=width,
        num_heads=_HEADS,
        mlp_dim=weights[f"{layer}.mlp.lin1.weight"].shape[0],
        attention_downsample_rate=width // weights[f"{layer}.cross_attn_token_to_image.q_proj.weight"].shape[0],
    )
    return controlnet_aux(f"{_MODELING}.mask_decoder").MaskDecoder(
        transformer_dim=width,
        transformer=transformer,
        num_multimask_outputs=answers - 1,
        iou_head_depth=count(weights, rf"^{decoder}\.iou_prediction_head\.layers\.(\d+)\."),
        iou_head_hidden_dim=weights[f"{decoder}.iou_prediction_head.layers.0.weight"].shape[0],
    )


def _vit(weights: Weights) -> tuple[nn.Module, int]:
    """Segment Anything's encoder, and the side of the square that it sees."""
    _, grid, _, width = weights["image_encoder.pos_embed"].shape
    depth = count(weights, r"^image_encoder\.blocks\.(\d+)\.")
    relative = [weights[f"image_encoder.blocks.{number}.attn.rel_pos_h"].shape for number in range(depth)]
    whole = 2 * grid - 1  # the distances in a block that attends to the whole picture instead of to windows
    module = controlnet_aux(f"{_MODELING}.image_encoder")
    encoder = module.ImageEncoderViT(
        img_size=grid * _PATCH,
        patch_size=_PATCH,
        embed_dim=width,
        depth=depth,
        num_heads=width // relative[0][1],
        mlp_ratio=weights["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
        out_chans=weights["image_encoder.neck.0.weight"].shape[0],
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=(min(distances for distances, _ in relative) + 1) // 2,
        global_attn_indexes=tuple(n for n, (distances, _) in enumerate(relative) if distances == whole),
    )
    in_parts(encoder, module.add_decomposed_rel_pos)
    return encoder, grid * _PATCH


def _tiny_vit(weights: Weights) -> tuple[nn.Module, int]:
    """MobileSAM's encoder, which there is in one size, and the side of the square that it sees."""
    module = controlnet_aux(f"{_MODELING}.tiny_vit_sam", instead=TIMM)
    encoder = module.TinyViT(
        img_size=_MOBILE_SIDE,
        num_classes=weights["image_encoder.head.weight"].shape[0],
        embed_dims=[64, 128, 160, 320],
        depths=[2, 2, 6, 2],
        num_heads=[2, 4, 5, 10],
        window_sizes=[7, 7, 14, 7],
        drop_path_rate=0.0,
    )
    return encoder, _MOBILE_SIDE
