"""ControlNet Union: one ControlNet for several kinds of control images, which is told the kind of each.

xinsir, 2024 (xinsir6/ControlNetPlus, models/controlnet_union.py); names as there, "transformer_layes" too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import timestep_embedding
from .config import ControlNetConfig
from .controlnet import ControlNet
from .operations import Operations


@dataclass(frozen=True)
class UnionConfig:
    """What a Union adds to its ControlNet. kinds: of control images. layers: of the tokens. width: of a kind's flag."""

    kinds: int
    layers: int
    width: int

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> UnionConfig:
        """Raises KeyError where the keys do not describe a Union."""
        kinds = weights["task_embedding"].shape[0]
        layers = sum(f"transformer_layes.{index}.ln_1.weight" in weights for index in range(len(weights)))
        return cls(kinds, layers, weights["control_add_embedding.linear_1.weight"].shape[1] // kinds)


class Projections(nn.Module):
    """Query, key and value from one matrix, and a way out. Keys as torch's MultiheadAttention."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.operations = ops
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = ops.linear(channels, channels)


class OwnValue(Projections):
    """Attention of a token to itself alone, (n, C) -> (n, C): its value, projected. Query and key have no say.

    The reference gives its tokens (n, L, C) to an attention that takes them as (L, n, C): tokens of one picture never
    see each other, and those of other pictures in a batch do, which is an accident of batching.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        channels, cast = tokens.shape[-1], self.operations.parameter
        weight, bias = self.in_proj_weight[2 * channels :], self.in_proj_bias[2 * channels :]
        return self.out_proj(F.linear(tokens, cast(weight), cast(bias)))


class QuickMLP(nn.Module):
    """(n, C) -> (n, C) through four times the width, with CLIP's quick GELU."""

    def __init__(self, channels: int, ops: Operations) -> None:
        super().__init__()
        self.c_fc = ops.linear(channels, 4 * channels)
        self.c_proj = ops.linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = self.c_fc(tokens)
        return self.c_proj(inner * torch.sigmoid(1.702 * inner))


class TokenLayer(nn.Module):
    """(..., C) -> (..., C), two residual branches; `attn`: what tokens learn of one another."""

    def __init__(self, attn: nn.Module, channels: int, ops: Operations) -> None:
        super().__init__()
        self.attn = attn
        self.ln_1 = ops.layer_norm(channels)
        self.mlp = QuickMLP(channels, ops)
        self.ln_2 = ops.layer_norm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.mlp(self.ln_2(tokens))


class KindEmbedding(nn.Module):
    """(1, kinds * width) -> (1, E)."""

    def __init__(self, inputs: int, embedding: int, ops: Operations) -> None:
        super().__init__()
        self.linear_1 = ops.linear(inputs, embedding)
        self.linear_2 = ops.linear(embedding, embedding)

    def forward(self, flags: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(flags)))


class ControlNetUnion(ControlNet):
    """Keys as ControlNet's, and the Union's own beside them."""

    def __init__(self, config: ControlNetConfig, union: UnionConfig, operations: Operations | None = None) -> None:
        super().__init__(config, operations)
        ops, channels = self.operations, config.unet.model_channels
        self.union = union
        self.task_embedding = nn.Parameter(torch.zeros(union.kinds, channels))
        self.transformer_layes = nn.ModuleList(
            TokenLayer(OwnValue(channels, ops), channels, ops) for _ in range(union.layers)
        )
        self.spatial_ch_projs = ops.linear(channels, channels)
        self.control_add_embedding = KindEmbedding(union.kinds * union.width, 4 * channels, ops)

    def encode_kind(self, features: Tensor, kind: int, share: float = 1.0) -> Tensor:
        """Features (n, C, h, w) of a control image from `encode_hint` -> what is added for it as a `kind`.

        Each picture's features are shifted by what their mean and the kind mean to the network; as often as there are
        features, that is once a pass. share: its strength where several are added up (diffusers' scale of one).
        """
        tokens = (features.mean(dim=(2, 3)) + self.operations.parameter(self.task_embedding[kind])) * share
        for layer in self.transformer_layes:
            tokens = layer(tokens)
        return (features + self.spatial_ch_projs(tokens)[:, :, None, None]) * share

    def embed_kinds(self, kinds: tuple[int, ...]) -> Tensor:
        """(1, E), which belongs to the embedding of the timesteps where control images of these kinds are given."""
        place = self.task_embedding.device
        flags = torch.tensor([float(kind in kinds) for kind in range(self.union.kinds)], device=place)
        return self.control_add_embedding(timestep_embedding(flags, self.union.width).flatten()[None].to(self.dtype))
