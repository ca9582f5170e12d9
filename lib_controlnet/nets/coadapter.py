"""T2I-Adapter for styles, and the fuser by which several CoAdapters agree on what each of them adds.

TencentARC/T2I-Adapter, branch SD, ldm/modules/encoders/adapter.py (`StyleAdapter`, `CoAdapterFuser`); names as there,
"transformer_layes" too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention
from .controlnet_union import Projections, TokenLayer
from .operations import Operations

_HEADS = 8
"""Not in the weights; the same in every released file."""


class TokenAttention(Projections):
    """Tokens (n, L, C) attend to one another."""

    def forward(self, tokens: Tensor) -> Tensor:
        cast = self.operations.parameter
        joined = F.linear(tokens, cast(self.in_proj_weight), cast(self.in_proj_bias))
        count, length, width = tokens.shape
        heads = joined.reshape(count, length, 3, _HEADS, width // _HEADS).permute(2, 0, 3, 1, 4)
        return self.out_proj(attention(heads[0], heads[1], heads[2]).transpose(1, 2).flatten(2))


def _layers(weights: Mapping[str, Tensor]) -> int:
    return sum(f"transformer_layes.{index}.ln_1.weight" in weights for index in range(len(weights)))


@dataclass(frozen=True)
class StyleConfig:
    """width: of the picture's tokens. tokens: how many come out. text: their width. layers: of the transformer."""

    width: int
    tokens: int
    text: int
    layers: int

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> StyleConfig:
        """Raises KeyError where the keys do not describe a style adapter."""
        _, tokens, width = weights["style_embedding"].shape
        return cls(width, tokens, weights["proj"].shape[1], _layers(weights))


class StyleAdapter(nn.Module):
    """Tokens for the prompt from what CLIP sees in a picture."""

    def __init__(self, config: StyleConfig, operations: Operations | None = None) -> None:
        super().__init__()
        ops = operations or Operations()
        self.operations = ops
        self.config = config
        self.transformer_layes = nn.Sequential(
            *(TokenLayer(TokenAttention(config.width, ops), config.width, ops) for _ in range(config.layers))
        )
        self.style_embedding = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.ln_post = ops.layer_norm(config.width)
        self.ln_pre = ops.layer_norm(config.width)
        self.proj = nn.Parameter(torch.zeros(config.width, config.text))

    def forward(self, seen: Tensor) -> Tensor:
        """(n, tokens, text) of CLIP's last hidden state (n, L, width), which has not gone through its last norm."""
        cast = self.operations.parameter
        own = cast(self.style_embedding).expand(seen.shape[0], -1, -1)
        tokens = self.transformer_layes(self.ln_pre(torch.cat([seen, own], dim=1)))
        return self.ln_post(tokens[:, -self.config.tokens :]) @ cast(self.proj)


@dataclass(frozen=True)
class FuserConfig:
    """width: of the tokens. tasks: kinds of adapters that it knows. channels: of the adapters' features."""

    width: int
    tasks: int
    channels: tuple[int, ...]
    layers: int

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> FuserConfig:
        """Raises KeyError where the keys do not describe a fuser."""
        tasks, width = weights["task_embedding"].shape
        levels = weights["positional_embedding"].shape[0]
        channels = tuple(weights[f"spatial_feat_mapping.{level}.1.weight"].shape[1] for level in range(levels))
        return cls(width, tasks, channels, _layers(weights))


class CoAdapterFuser(nn.Module):
    """Factors for the features and tokens of several adapters, from what all of them are about to add."""

    def __init__(self, config: FuserConfig, operations: Operations | None = None) -> None:
        super().__init__()
        ops, width = operations or Operations(), config.width
        self.operations = ops
        self.config = config
        self.task_embedding = nn.Parameter(torch.zeros(config.tasks, width))
        self.positional_embedding = nn.Parameter(torch.zeros(len(config.channels), width))
        self.spatial_feat_mapping = nn.ModuleList(
            nn.Sequential(nn.SiLU(), ops.linear(channels, width)) for channels in config.channels
        )
        self.transformer_layes = nn.Sequential(
            *(TokenLayer(TokenAttention(width, ops), width, ops) for _ in range(config.layers))
        )
        self.ln_post = ops.layer_norm(width)
        self.ln_pre = ops.layer_norm(width)
        self.spatial_ch_projs = nn.ModuleList(ops.zeroed(ops.linear(width, channels)) for channels in config.channels)
        self.seq_proj = nn.Parameter(torch.zeros(width, width))

    def forward(
        self, spatial: Sequence[tuple[int, Sequence[Tensor]]], styles: Sequence[tuple[int, Tensor]]
    ) -> tuple[list[tuple[Tensor, ...]], list[Tensor]]:
        """Factors (n, C) of each feature of each spatial adapter, and (n, L, width) of each style's tokens.

        spatial: tasks with the means over positions (n, C) of an adapter's features. styles: tasks with tokens
        (n, L, width). Both as far as the adapters' weights let them act.
        """
        cast = self.operations.parameter
        tasks, places = cast(self.task_embedding), cast(self.positional_embedding)
        parts = [
            torch.stack([mapping(mean) for mapping, mean in zip(self.spatial_feat_mapping, means, strict=True)], dim=1)
            + tasks[task]
            + places
            for task, means in spatial
        ]
        parts += [tokens + tasks[task] for task, tokens in styles]
        lengths = [part.shape[1] for part in parts]
        seen = self.ln_post(self.transformer_layes(self.ln_pre(torch.cat(parts, dim=1)))).split(lengths, dim=1)
        factors = [
            tuple(project(part[:, level]) + 1.0 for level, project in enumerate(self.spatial_ch_projs))
            for part in seen[: len(spatial)]
        ]
        return factors, [part @ cast(self.seq_proj) + 1.0 for part in seen[len(spatial) :]]
